# shellcheck shell=busybox
# SPDX-License-Identifier: BSD-3-Clause
#
# What scenarios do inside the guest. Sourced by /init.
#
# NIC number N, from 1, has the MAC address 52:54:00:12:34:5N; it gets 10.77.N.2, and its host is
# 10.77.N.1, where a stream to port 5001 is hashed, port 5002 sends one, and port 5003 tells how often it
# has been asked. Sizes are in MiB.

say() { echo "@viommu $*"; }

finish() {
    say result "$@"
    poweroff -f
    sleep 60
}

fail() {
    echo "guest: the last kernel messages:"
    dmesg | tail -n 40
    finish fail "$*"
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    tries=$(($1 * 10))
    shift
    until "$@" 2> /dev/null; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        usleep 100000
    done
}

not() { ! "$@"; }
hash_of() { sha256sum "$1" | cut -d ' ' -f 1; }
centiseconds() { tr -d . < /proc/uptime | cut -d ' ' -f 1; }

load_modules() {
    while read -r module parameters; do
        # shellcheck disable=SC2086  # several parameters are several words
        insmod "/modules/$module" $parameters || fail "cannot load $module"
    done < /modules/order
}

# The network device with NIC N's address, e.g. eth0; fails while there is none.
nic() {
    for candidate in /sys/class/net/*; do
        if grep -qi "^52:54:00:12:34:5$1" "$candidate/address"; then basename "$candidate"; return; fi
    done
    return 1
}

# NIC N's PCI address. Its network device hangs from a virtio device, which hangs from the function.
bdf() { basename "$(readlink -f "/sys/class/net/$(nic "$1")/device/..")"; }

has_carrier() { [ "$(cat "/sys/class/net/$1/carrier")" = 1 ]; }

# await_nic N: it is there; says which IOMMU group it is in, and of which type, if it is in one.
await_nic() {
    wait_for 30 nic "$1" > /dev/null || fail "NIC $1 did not appear"
    group=/sys/bus/pci/devices/$(bdf "$1")/iommu_group
    [ ! -e "$group" ] || say "group $1" "$(basename "$(readlink -f "$group")") $(cat "$group/type")"
    say "nic $1" "$(nic "$1") $(bdf "$1")"
}

# bring_up N: it has its address and a carrier.
bring_up() {
    await_nic "$1"
    device=$(nic "$1")
    ip addr add "10.77.$1.2/24" dev "$device" || fail "cannot give $device its address"
    ip link set "$device" up || fail "cannot start $device"
    wait_for 10 has_carrier "$device" || fail "$device has no carrier"
}

# ping_host N
ping_host() {
    ping -c 20 -i 0.05 -W 3 -w 20 "10.77.$1.1" > "/tmp/ping.$1"
    [ -s "/tmp/ping.$1" ] || fail "ping did not run"
    say ping "$(sed -n '/transmitted/{N;s/\n/; /p}' "/tmp/ping.$1")"
    grep -q ' 0% packet loss' "/tmp/ping.$1" || fail "ping lost packets"
}

# send N SIZE: a stream to the host.
send() {
    dd if=/dev/urandom of="/tmp/out.$1" bs=1M count="$2" 2> /dev/null
    sent=$(hash_of "/tmp/out.$1")
    start=$(centiseconds)
    # As nc's child the stream ends when the file does, whatever the other side's input does.
    timeout 60 nc "10.77.$1.1" 5001 -e cat "/tmp/out.$1" || fail "sending did not end well"
    say to-host "$sent $2 MiB $(($(centiseconds) - start)) cs"
    rm "/tmp/out.$1"
}

# receive N: a stream from the host, as long as the host likes.
receive() {
    start=$(centiseconds)
    # shellcheck disable=SC2016
    timeout 60 nc "10.77.$1.1" 5002 -e sh -c 'cat > "$0"' "/tmp/in.$1" || fail "receiving did not end well"
    took=$(($(centiseconds) - start))
    say to-guest "$(hash_of "/tmp/in.$1") $(($(stat -c %s "/tmp/in.$1") >> 20)) MiB $took cs"
    rm "/tmp/in.$1"
}

# use N SIZE: all of the above, and afterwards NIC N is up.
use() {
    bring_up "$1"
    ping_host "$1"
    send "$1" "$2"
    receive "$1"
}

# use_two SIZE: NICs 1 and 2; they send at the same time.
use_two() {
    bring_up 1
    bring_up 2
    for n in 1 2; do
        ping_host $n
        receive $n
    done
    send 1 "$1" &
    send 2 "$1"
    wait
}

# How often this guest, or an earlier life of it, has asked; through NIC N.
times_asked() { timeout 20 nc "10.77.$1.1" 5003; }

# drive_with DRIVER BDF: take the function from the driver that it has, if any, and give it to another.
drive_with() {
    function=/sys/bus/pci/devices/$2
    [ ! -e "$function/driver" ] || echo "$2" > "$function/driver/unbind"
    [ "$1" != none ] || return 0
    echo "$1" > "$function/driver_override"
    echo "$2" > /sys/bus/pci/drivers_probe
    [ "$(basename "$(readlink -f "$function/driver")")" = "$1" ] || fail "$1 does not take $2"
}
