# shellcheck shell=busybox
# SPDX-License-Identifier: BSD-3-Clause
#
# What the guest of `pktgen` does; runs like a scenario's guest.sh. Each NIC receives, then NIC 1 sends. Says
#   transmit SIZE PACKETS MICROSECONDS INTERRUPTS     what pktgen counted
#   receive SIZE PACKETS CENTISECONDS INTERRUPTS      of one NIC for each size
#   sent PACKETS                           as `transmit`, what warmed up counted too
#   received PACKETS                       all NICs' together
# The kernel's command line has viommu.seconds=S, for how long a point is measured, and
# viommu.sizes=A,B, of frames: NIC 2 receives those of A bytes, NIC 3 those of B.

parameter() { tr ' ' '\n' < /proc/cmdline | sed -n "s/^viommu\.$1=//p"; }
statistic() { cat "/sys/class/net/$(nic "$1")/statistics/$2"; }

# Of all NICs' queues.
interrupts() { awk '/virtio/ { n += $2 } END { print n + 0 }' /proc/interrupts; }

seconds=$(parameter seconds)
sizes=$(parameter sizes | tr , ' ')
generator=/proc/net/pktgen

# receive NIC SIZE. Only while its NIC is up does the guest take anything.
receive() {
    device=$(nic "$1")
    ip link set "$device" up || fail "cannot start $device"
    wait_for 10 has_carrier "$device" || fail "$device has no carrier"
    sleep 1
    start=$(centiseconds)
    before=$(statistic "$1" rx_packets)
    signals=$(interrupts)
    sleep "$seconds"
    end=$(centiseconds)
    packets=$(($(statistic "$1" rx_packets) - before))
    say receive "$2 $packets $((end - start)) $(($(interrupts) - signals))"
    ip link set "$device" down
}

# generate SIZE SECONDS: frames that no other host would take, each in a buffer of its own.
generate() {
    echo rem_device_all > $generator/kpktgend_0
    echo "add_device $device" > $generator/kpktgend_0
    for setting in "count 0" "clone_skb 0" "delay 0" "pkt_size $1" "dst 198.18.0.2" \
        "dst_mac 02:00:00:00:00:02"; do
        echo "$setting" > "$generator/$device" || fail "pktgen does not take '$setting'"
    done
    echo start > $generator/pgctrl &
    sleep "$2"
    echo stop > $generator/pgctrl
    wait
    result=$(sed -n 's/^Result: OK: \([0-9]*\).* usec, \([0-9]*\) .*/\2 \1/p' "$generator/$device")
    [ -n "$result" ] || fail "pktgen: $(cat "$generator/$device")"
    sent=$((sent + ${result% *}))
}

# transmit SIZE
transmit() {
    generate "$1" 1   # QEMU compiles, the guest's caches of addresses fill
    signals=$(interrupts)
    generate "$1" "$seconds"
    say transmit "$1 $result $(($(interrupts) - signals))"
}

for n in 1 2 3; do
    await_nic $n
    say features $n "$(cat "/sys/class/net/$(nic $n)/device/features")"
done
# Receiving first: the back end's buffers are then still empty, so that nothing it sends has a protocol that
# somebody in the guest would wait for.
n=2
for size in $sizes; do
    receive $n "$size"
    n=$((n + 1))
done
device=$(nic 1)
ip link set "$device" up || fail "cannot start $device"
wait_for 10 has_carrier "$device" || fail "$device has no carrier"
sent=0   # The driver's own count is behind: it counts what it has got back.
for size in $sizes; do transmit "$size"; done
sleep 2   # the rest of the ring
say sent $sent
say received $(($(statistic 1 rx_packets) + $(statistic 2 rx_packets) + $(statistic 3 rx_packets)))
