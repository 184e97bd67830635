# SPDX-License-Identifier: BSD-3-Clause

say_queues() { say queues "$(find "/sys/class/net/$device/queues" -maxdepth 1 -name 'rx-*' | wc -l)"; }

bring_up 1
say features 1 "$(cat "/sys/class/net/$device/device/features")"
say_queues
ping_host 1
# Each CPU has a transmitq of its own.
for cpu in 0 1 2 3; do
    taskset -c $cpu sh -c '. /guest.sh; send 1 4' || fail "sending from CPU $cpu did not end well"
done
# Connections are hashed to receiveqs: so many leave out none.
for _ in $(seq 48); do times_asked 1 > /dev/null; done
for _ in 1 2 3; do receive 1; done

net-channels "$device" 2 || fail "the number of pairs cannot be changed"
say_queues
receive 1
net-channels "$device" 4 || fail "the number of pairs cannot be changed back"
say_queues
send 1 4

# Another address; and the first again when another driver's life begins.
ip link set "$device" address 52:54:00:12:34:61 || fail "the address cannot be changed"
ping_host 1
receive 1
place=$(basename "$(readlink -f "/sys/class/net/$device/device/..")")
drive_with none "$place"
drive_with virtio-pci "$place"
use 1 4
