# SPDX-License-Identifier: BSD-3-Clause

use 1 8
place=$(bdf 1)
drive_with vfio-pci "$place"
vfio-net "$place" 10.77.1.2 10.77.1.1 2> /tmp/vfio || fail "$(cat /tmp/vfio)"
# What the IOMMU reported, and to the console it is late already.
wait_for 5 sh -c 'dmesg | grep -q "fault from EP"' || fail "the kernel was told of no fault"
# A driver that dies in the middle, with the device running: the kernel takes everything away at once.
vfio-net "$place" 10.77.1.2 10.77.1.1 forever > /tmp/forever &
driver=$!
wait_for 10 grep -q exchanging /tmp/forever || fail "vfio-net exchanges nothing"
usleep 300000
kill -9 $driver || fail "vfio-net ended by itself"
wait $driver
say killed vfio-net
# Nothing else is harmed: the kernel's driver takes the device back, into a domain of its own.
drive_with virtio-pci "$place"
use 1 8
