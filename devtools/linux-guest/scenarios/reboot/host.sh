# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='reboot through firmware, in the same QEMU, with the same daemon; traffic in both lives'
transfers=2 stream_mib=8 reboots=1
append=panic=0   # a guest that panics must not come back as if nothing had happened

check_counters() {
    # Each life begins with a reset of the table, and attaches and maps anew.
    expect_counter 'guest\.vm0\.resets' -ge 2
    expect_counter 'guest\.vm0\.requests\.attach' -eq 2
    expect_counter 'guest\.vm0\.requests\.map' -gt 0
    expect_counter 'guest\.vm0\.requests\.unmap' -gt 0
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
    expect_counter 'guest\.vm0\.table\.domains' -eq 1
}

check_more() {
    expect "the guest started $(guest_says kernel | wc -l) times, not twice" [ "$(guest_says kernel | wc -l)" = 2 ]
}
