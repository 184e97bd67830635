# SPDX-License-Identifier: BSD-3-Clause

use 1 8
for round in 1 2; do
    say unplug "$round"
    wait_for 30 not nic 1 || fail "the NIC did not go, round $round"
    say unplugged "$round"
    use 1 8
done
