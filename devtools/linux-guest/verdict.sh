# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
#
# What a run must have come to. Sourced by `run` and `pktgen`; uses what the scenario has set (see run).
# shellcheck disable=SC2154

# What never belongs into a guest's kernel log.
readonly kTrouble='fault from EP|virtio_iommu.*(fail|timeout|error)|NETDEV WATCHDOG|BUG:|WARNING:|Oops|Kernel panic|Call Trace|soft lockup|blocked for more than|detected stalls'

failures=()

# Everything that the guest said about NAME. Serial lines end in CR LF.
guest_says() { tr -d '\r' < "$work/guest.log" | sed -n "s/^@viommu $1 //p"; }

# The daemon's counters, printed by itself at its end: the last value of each.
counters() { awk 'NF == 2 && $1 ~ /^[a-z]+\..*[a-z]$/ && $2 ~ /^[0-9]+$/ { v[$1] = $2 }
                  END { for (n in v) print n, v[n] }' "$work/daemon.log" | sort; }

# counter PATTERN: the sum of the counters whose whole name matches; nothing if none does.
counter() { counters | awk -v p="^($1)\$" '$1 ~ p { sum += $2; n++ } END { if (n) print sum }'; }

# expect COMPLAINT COMMAND...: the run fails with the complaint if the command does.
expect() {
    local what=$1
    shift
    if "$@"; then return; fi
    failures+=("$what")
}

# expect_counter PATTERN OPERATOR NUMBER, e.g. -eq 0
expect_counter() {
    local value
    value=$(counter "$1")
    expect "${1//\\/} is '$value', expected $2 $3" numbers "$value" "$2" "$3"
}

numbers() { [[ $1 =~ ^[0-9]+$ ]] && test "$1" "$2" "$3"; }
matches() { [[ $1 =~ $2 ]]; }
same() { [[ -n $1 && $1 == "$2" ]]; }
line() { printf '%-9s %s\n' "$1" "$2"; }

check_guest() {
    local n group trouble
    line guest "Linux $(guest_says kernel | tail -n 1), nic $nic${append:+, $append}"
    for ((n = 1; n <= nics; n++)); do
        while read -r group; do
            line iommu "NIC $n: group ${group/ /, }"
            expect "NIC $n: the IOMMU group's type is '${group#* }', not $group_type" \
                same "${group#* }" "$group_type"
        done < <(guest_says "group $n")
        if [[ -n $group_type ]]; then
            expect "NIC $n: no IOMMU group" matches "$(guest_says "group $n")" .
        else
            expect "NIC $n: an IOMMU group" same "none$(guest_says "group $n")" none
        fi
    done
    while read -r group; do
        line ping "$group"
        expect "pings were lost" matches "$group" ' 0% packet loss'
    done < <(guest_says ping)
    expect "the guest reports '$(guest_says result)'" same "$(guest_says result)" ok
    trouble=$(tr -d '\r' < "$work/guest.log" | grep -E "$kTrouble" | grep -vE "${tolerated:-^$}" | head -n 3) || true
    expect "the guest's kernel complains: $trouble" same "none$trouble" none
}

# check_transfers DIRECTION SENT RECEIVED: hashes, one per line, of what left and of what came.
check_transfers() {
    line "$1" "$(guest_says "$1" | cut -d ' ' -f 2- | paste -sd , | sed 's/,/, /g')"
    line '' "sent     $(head -n 1 <<< "$2")"
    line '' "received $(head -n 1 <<< "$3")"
    expect "$1: $(wc -w <<< "$2") streams were sent, not $transfers" [ "$(wc -w <<< "$2")" -eq "$transfers" ]
    expect "$1: what was received is not what was sent" [ "$(sort <<< "$2")" = "$(sort <<< "$3")" ]
}

check_streams() {
    local n original
    ((transfers)) || return 0
    check_transfers to-host "$(guest_says to-host | cut -d ' ' -f 1)" "$(cat "$work/from-guest")"
    original=$("$fetched/x86_64/busybox" sha256sum "$work/to-guest")
    check_transfers to-guest "$(for ((n = 0; n < transfers; n++)); do echo "${original%% *}"; done)" \
        "$(guest_says to-guest | cut -d ' ' -f 1)"
}

# What the daemon must have counted. Scenarios may define another.
check_counters() {
    expect_counter 'guest\.vm0\.requests\.map' -gt 0
    expect_counter 'guest\.vm0\.requests\.unmap' -gt 0
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
}

# More that a scenario wants to be so.
check_more() { :; }

check_daemon() {
    local status=0
    stop daemon || status=$?
    line counters ''
    counters | awk '$2 != 0 || $1 ~ /\.faults\./ { print "  " $1, $2 }'
    expect "the daemon ended with status $status" same "$status" 0
    # Linux's driver sends nothing that the device does not understand.
    expect_counter 'guest\.vm0\.(requests\.unreadable|queue\.(malformed|unreachable|unusable))' -eq 0
    expect_counter 'net\..*\.(drop_malformed|ring_broken|ring_unusable)' -eq 0
    check_counters
}
