# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='the NIC given to a user-space driver through VFIO, and what it reaches after VFIO has unmapped it'
transfers=2 stream_mib=8
# This x86 has no interrupt remapping, which VFIO wants to be told is accepted.
modules=(virtio-iommu virtio_net 'vfio_iommu_type1 allow_unsafe_interrupts=1' vfio-pci)
programs=(vfio-net)
# Of endpoint 00:04.0, at the three IOVAs that vfio-net takes away.
tolerated='page fault from EP 32 at 0x(1000[01]|20000|3000[0-7])[0-9a-f]{3} '

check_counters() {
    expect_counter 'guest\.vm0\.faults\.reported' -ge 3
    expect_counter 'guest\.vm0\.faults\.(dropped_no_buffer|dropped_rate|lost)' -eq 0
    expect_counter 'net\.vm0/net1\.from_guest\.drop_fault' -ge 1
    expect_counter 'net\.vm0/net1\.to_guest\.drop_fault' -ge 1
    expect_counter 'net\.vm0/net1\.(from|to)_guest\.ring_unmapped' -ge 1
}

check_more() {
    guest_says vfio | sed 's/^/vfio      /'
    expect "vfio-net did not come to its end" matches "$(guest_says vfio)" 'rings mapped again: 17 exchanges'
    expect "the second vfio-net was not killed" same "$(guest_says killed)" vfio-net
    expect "VFIO does not see the IOMMU's input range" \
        matches "$(guest_says vfio)" 'iova-range 0x1000000 0x3fffffff'
    expect "no fault reported for the send buffer" in_kernel_log 'page fault from EP 32 at 0x20000000 \[R'
    expect "no fault reported for a receive buffer" in_kernel_log 'page fault from EP 32 at 0x3000[0-7][0-9a-f]{3} \[W'
    expect "no fault reported for a ring" in_kernel_log 'page fault from EP 32 at 0x1000[01][0-9a-f]{3} '
}

in_kernel_log() { tr -d '\r' < "$work/guest.log" | grep -E "$1" > /dev/null; }
