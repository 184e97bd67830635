# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='four pairs of queues and a control queue: the pairs in use, RSS, filters, the MAC address'
nic=generic smp=4 queue_pairs=4 control_queue=1
lcores=0@0,1@0,2@1,3@0 net_lcore='[2, 3]'
transfers=6 stream_mib=8 programs=(net-channels)

check_counters() {
    local pair
    for pair in 0 1 2 3; do
        expect_counter "net\.vm0/net1\.q$pair\.from_guest\.packets" -gt 20
        expect_counter "net\.vm0/net1\.q$pair\.to_guest\.packets" -gt 20
    done
    expect_counter 'net\.vm0/net1\.control\.packets' -gt 8
    expect_counter 'net\.vm0/net1\.control\.drop_.*' -eq 0
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
}

check_more() {
    local bit features
    features=$(guest_says 'features 1')
    # CTRL_VQ, CTRL_RX, CTRL_VLAN, MQ, CTRL_MAC_ADDR, RSS
    for bit in 17 18 19 22 23 60; do
        expect "the guest has not accepted feature $bit" same "${features:bit:1}" 1
    done
    expect "the guest's kernel does without RSS" matches "none$(grep 'RSS' "$work/guest.log")" '^none$'
    line queues "$(guest_says queues | paste -sd ' ')"
    expect "queues in use: $(guest_says queues)" same "$(guest_says queues | paste -sd ' ')" '4 2 4'
}
