# SPDX-License-Identifier: BSD-3-Clause

use 1 8
# Nothing is taken down: the devices are reset while they are in use.
case $(times_asked 1) in
1) say rebooting now; reboot -f; sleep 60; fail "still here after reboot" ;;
2) ;;
*) fail "the host does not know how often it was asked" ;;
esac
