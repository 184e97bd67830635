# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
#
# What is started for a run and ended after it: a network namespace, processes, the host's ends of the
# transfers. Sourced by `run` and `pktgen`, which set
#   fetched    the folder that fetch prints
#   work       a private folder for sockets, configuration and logs
#   namespace  the name for the network namespace
#   time_limit, keep   its options
# shellcheck disable=SC2154

declare -A started=()   # name -> process id, of what we have to end

note() { printf '%s\n' "$*" >&2; }

# fail WHAT: the run cannot go on.
fail() { note "run: $*"; show_logs; exit 1; }

show_logs() {
    local log
    for log in "$work"/*.log; do
        [[ -s $log ]] || continue
        note "--- last lines of $(basename "$log")"
        tail -n 30 "$log" | tr -d '\r' >&2
    done
}

in_namespace() { exec ip netns exec "$namespace" "$@"; }   # only in a subshell: keeps the process id

# start NAME COMMAND...: in the background, in the namespace, output into NAME.log.
start() {
    local name=$1
    shift
    : > "$work/$name.log"   # there is something to look into at once
    in_namespace "$@" > "$work/$name.log" 2>&1 < /dev/null &
    started[$name]=$!
}

# Whether a process is still there and is our child (its id may have been given to another since).
runs() { grep -q "^PPid:[[:space:]]*$$\$" "/proc/$1/status" 2> /dev/null; }

# stop NAME: end it gently, then surely; returns its exit status.
stop() {
    local name=$1 pid=${started[$1]:-} tries
    [[ -n $pid ]] || return 0
    unset "started[$name]"
    if runs "$pid"; then kill -TERM "$pid"; fi
    for ((tries = 0; tries < 350; tries++)); do
        runs "$pid" || break
        sleep 0.1
    done
    # timeout has made a process group: what it started must not outlive it.
    if runs "$pid"; then kill -KILL -- "-$pid" 2> /dev/null || kill -KILL "$pid"; fi
    wait "$pid"
}

# wait_until_ready NAME PATTERN SECONDS: until a line of what NAME prints matches.
wait_until_ready() {
    local tries
    for ((tries = 0; tries < $3 * 10; tries++)); do
        if grep -qE "$2" "$work/$1.log"; then return; fi
        runs "${started[$1]}" || fail "the $1 ended before it was ready"
        sleep 0.1
    done
    fail "the $1 is not ready after $3 s"
}

make_namespace() {
    ip netns add "$namespace"
    ip -n "$namespace" link set lo up
}

# configure_tap N: NIC N's tap, which the daemon or we have made, gets the host's address.
configure_tap() {
    ip -n "$namespace" addr add "10.77.$1.1/24" dev "vtap$1" ||
        fail "the namespace has no vtap$1: the daemon's net_tap should have made it"
    ip -n "$namespace" link set "vtap$1" up
}

# wait_for_line FILE PATTERN SECONDS: until a line of $work/FILE matches; the guest must be running.
wait_for_line() {
    local tries
    for ((tries = 0; tries < $3 * 10; tries++)); do
        if tr -d '\r' < "$work/$1" | grep -E "$2" > /dev/null; then return; fi
        runs "${started[guest]}" || fail "the guest ended before '$2' came"
        sleep 0.1
    done
    fail "no '$2' in $1 after $3 s"
}

# The host's ends, for any number of connections. As nc's child a stream ends when the file does,
# whatever comes the other way.
start_peers() {
    local busybox=$fetched/x86_64/busybox
    head -c $((stream_mib << 20)) /dev/urandom > "$work/to-guest"
    : > "$work/from-guest"
    : > "$work/asked"
    # Each line is one write, so connections at the same time do not mix theirs.
    # shellcheck disable=SC2016
    start receiver timeout "$time_limit" "$busybox" nc -ll -p 5001 \
        -e "$busybox" sh -c '"$0" sha256sum | "$0" cut -d " " -f 1 >> "$1"' "$busybox" "$work/from-guest"
    start sender timeout "$time_limit" "$busybox" nc -ll -p 5002 -e "$busybox" cat "$work/to-guest"
    # shellcheck disable=SC2016
    start asked timeout "$time_limit" "$busybox" nc -ll -p 5003 \
        -e "$busybox" sh -c 'echo >> "$1"; "$0" wc -l < "$1"' "$busybox" "$work/asked"
}

# stop_peers TRANSFERS: when so many have been received, or none comes any more.
stop_peers() {
    local name tries
    for ((tries = 0; tries < 50; tries++)); do
        (($(wc -l < "$work/from-guest") < $1)) || break
        sleep 0.1
    done
    for name in receiver sender asked; do stop "$name" || true; done
}

# Until the guest has powered off. What serves it must not end before.
wait_for_guest() {
    local ended name status=0
    wait -n -p ended "${started[guest]}" ${started[daemon]:+"${started[daemon]}"} \
        ${started[testpmd]:+"${started[testpmd]}"} || status=$?
    for name in daemon testpmd; do
        [[ $ended == "${started[$name]:-}" ]] || continue
        unset "started[$name]"
        fail "the $name ended, with status $status, while the guest ran"
    done
    unset "started[guest]"
    case $status in
    0) ;;
    124 | 137) fail "the guest did not finish in $time_limit s" ;;
    *) fail "QEMU ended with status $status" ;;
    esac
}

# Whatever is left, on every way out.
clean_up() {
    local name
    set +e
    trap '' INT TERM HUP
    for name in "${!started[@]}"; do stop "$name" 2> /dev/null; done
    if [[ -n $namespace ]]; then
        ip netns del "$namespace" 2> /dev/null
        rm -rf "/var/run/dpdk/$namespace"
    fi
    if [[ -n $keep ]]; then
        note "run: logs are in $work"
    elif [[ -n $work ]]; then
        rm -rf "$work"
    fi
}
