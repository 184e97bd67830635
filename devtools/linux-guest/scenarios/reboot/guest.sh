# SPDX-License-Identifier: BSD-3-Clause

use 1 8
# Nothing is taken down: the devices are reset while they are in use.
case $(times_asked 1) in
# At once, as a crash would: with `reboot -f` Linux 6.12.117 breaks its virtio devices first, and then may
# wait for ever for the answer to an UNMAP of the NIC that it has not stopped.
1) say rebooting now; echo b > /proc/sysrq-trigger; sleep 60; fail "still here after reboot" ;;
2) ;;
*) fail "the host does not know how often it was asked" ;;
esac
