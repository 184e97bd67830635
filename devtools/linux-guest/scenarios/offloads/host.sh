# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='packets larger than the MTU: cut for a tap, and handed to another NIC as they are'
nics=3 transfers=1
readonly kFrame=1514

# NICs 2 and 3 are each other's peers.
nic_peer() {
    case $1 in
    1) echo 'vdev:net_tap1,iface=vtap1' ;;
    2) echo 'guest:vm0/net3' ;;
    3) echo 'guest:vm0/net2' ;;
    esac
}
has_tap() { (($1 == 1)); }

# expect_large PORT.WAY: on average a packet is some times as large as the MTU allows.
expect_large() {
    expect_counter "net\.vm0/$1\.bytes" -gt $((4 * kFrame * $(counter "net\.vm0/$1\.packets")))
}

check_counters() {
    local port
    expect_large net1.from_guest
    expect_counter 'net\.vm0/net1\.device\.segmented' -gt 100
    for port in net2 net3; do
        expect_large $port.from_guest
        expect_large $port.to_guest
    done
    expect_counter 'net\.vm0/net[23]\.to_guest\.segmented' -eq 0
    expect_counter 'net\..*\.drop_(offload|rest|too_big|refused)' -eq 0
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
}

check_more() {
    # CSUM, GUEST_CSUM, GUEST_TSO4 and 6, HOST_TSO4 and 6
    local n bit features offloads=(0 1 7 8 11 12)
    # GUEST_USO4 and 6, HOST_USO: QEMU's virtio-net-pci offers them with a tap of its own only.
    [[ $nic != generic ]] || offloads+=(54 55 56)
    for ((n = 1; n <= nics; n++)); do
        features=$(guest_says "features $n")
        for bit in "${offloads[@]}"; do
            expect "NIC $n: the guest has not accepted feature $bit" same "${features:bit:1}" 1
        done
    done
    line between "$(guest_says between | paste -sd , | sed 's/,/, /g')"
    expect "two streams between NICs 2 and 3" [ "$(guest_says between | wc -l)" -eq 2 ]
}
