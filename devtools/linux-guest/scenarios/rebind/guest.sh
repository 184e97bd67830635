# SPDX-License-Identifier: BSD-3-Clause

use 1 8
place=$(bdf 1)
for round in 1 2; do
    drive_with none "$place"
    ! nic 1 || fail "the NIC is still there without its driver, round $round"
    drive_with virtio-pci "$place"
    use 1 8
done

# The IOMMU's own driver cannot leave: Linux counts every device behind an IOMMU as a user of its driver.
! rmmod virtio_iommu 2> /tmp/rmmod || fail "virtio_iommu could be unloaded under the NIC"
grep -q 'temporarily unavailable\|in use' /tmp/rmmod || fail "rmmod virtio_iommu: $(cat /tmp/rmmod)"
say rmmod "$(cat /tmp/rmmod)"
ping_host 1
