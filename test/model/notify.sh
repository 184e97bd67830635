#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Check test/model/notify.pml with spin: no wake-up is lost as it is, and one is for each ordering
# taken away.
here=$(dirname "$(readlink -f "$0")")
model=$here/notify.pml
. "$here/spin.bash"

for kind in -DFLAGS -DEVENT; do
    expect 0 $kind
    expect 1 $kind -DNO_PUBLISHER_FENCE
    expect 1 $kind -DNO_SLEEPER_FENCE
    expect 1 $kind -DNO_SECOND_LOOK
done
expect 1 -DEVENT -DLAST_BATCH_ONLY
exit $status
