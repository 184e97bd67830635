# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='two NICs, each in a group and a domain of its own'
nics=2 transfers=2 stream_mib=8

check_counters() {
    expect_counter 'guest\.vm0\.requests\.attach' -eq 2
    expect_counter 'guest\.vm0\.table\.domains' -eq 2
    expect_counter 'guest\.vm0\.requests\.map' -gt 0
    expect_counter 'guest\.vm0\.requests\.unmap' -gt 0
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
}

check_more() {
    expect "the NICs are in one group" [ "$(guest_says 'group 1')" != "$(guest_says 'group 2')" ]
}
