# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='two NICs, functions of one device without ACS: one group, one domain, two endpoints'
nics=2 transfers=2 stream_mib=8

# 04.0 and 04.1
nic_place() { printf 'addr=4.%s,multifunction=on\n' $(($1 - 1)); }
nic_bdf() { printf '0000:00:04.%s\n' $(($1 - 1)); }

check_counters() {
    expect_counter 'guest\.vm0\.requests\.attach' -eq 2
    expect_counter 'guest\.vm0\.table\.domains' -eq 1
    expect_counter 'guest\.vm0\.table\.endpoints' -eq 2
    expect_counter 'guest\.vm0\.requests\.map' -gt 0
    expect_counter 'guest\.vm0\.requests\.unmap' -gt 0
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
}

check_more() {
    expect "the NICs are in two groups" same "$(guest_says 'group 1')" "$(guest_says 'group 2')"
}
