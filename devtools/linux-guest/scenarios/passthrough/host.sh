# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='iommu=pt: a bypass domain; guest-physical addresses, nothing to map'
append=iommu=pt group_type=identity

check_counters() {
    expect_counter 'guest\.vm0\.requests\.attach_bypass' -eq 1
    expect_counter 'guest\.vm0\.requests\.(map|unmap)' -eq 0
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
}
