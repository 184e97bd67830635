# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='an arm64 guest that maps its MSI doorbell; stock QEMU then delivers no interrupt, which is shown'
nic=pci   # QEMU's generic device has no MSIs
arch=aarch64 group_type=DMA time_limit=300 transfers=0
iommu_keys='msi = false'
# QEMU writes MSIs to where the guest's IOVA would be if it were guest-physical. Let that be no memory in use.
append=mem=512M
tolerated='NETDEV WATCHDOG'

check_counters() {
    expect_counter 'guest\.vm0\.requests\.map_mmio' -eq 1
    expect_counter 'guest\.vm0\.requests\.map' -gt 1
    expect_counter 'guest\.vm0\.status\.(unsupp|inval|range|nomem|ioerr|deverr|noent|fault)' -eq 0
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
}

check_more() {
    guest_says 'doorbell[a-z-]*' | sed 's/^/doorbell  /'
    expect "the guest had $(guest_says doorbell-interrupts) interrupts of the NIC: QEMU translates MSIs now?" \
        same "$(guest_says doorbell-interrupts)" 0
    expect "no MSI was written to the doorbell's IOVA" matches "$(guest_says doorbell-written)" '^0x7f[0-9a-f]+40 0x0000000[1-9]'
}
