# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='Linux as it comes: unmapped addresses are invalidated in batches'
transfers=1 group_type=DMA-FQ

check_counters() {
    expect_counter 'guest\.vm0\.requests\.map' -gt 0
    expect_counter 'guest\.vm0\.requests\.unmap' -gt $((2 * $(counter 'guest\.vm0\.queue\.grace_periods')))
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
}
