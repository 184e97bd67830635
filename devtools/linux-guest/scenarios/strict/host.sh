# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='iommu.strict=1: every unmapping is waited for'
append=iommu.strict=1 transfers=1 group_type=DMA

check_counters() {
    expect_counter 'guest\.vm0\.requests\.map' -gt 0
    expect_counter 'guest\.vm0\.requests\.unmap' -gt 0
    expect_counter 'guest\.vm0\.queue\.grace_periods' -ge "$(counter 'guest\.vm0\.requests\.unmap')"
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
}
