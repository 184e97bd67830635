# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='an arm64 guest with a devicetree; the MSI doorbell is reserved, as QEMU does not translate it'
arch=aarch64 group_type=DMA time_limit=300 stream_mib=8
# GITS_TRANSLATER of QEMU's virt machine is in this page.
iommu_keys='msi      = false
reserved = [ { first = 0x8090000, last = 0x8090fff, type = "msi" } ]'

check_counters() {
    expect_counter 'guest\.vm0\.requests\.map' -gt 0
    expect_counter 'guest\.vm0\.requests\.unmap' -gt 0
    expect_counter 'guest\.vm0\.requests\.map_mmio' -eq 0
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
}
