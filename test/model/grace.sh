#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Check test/model/grace.pml with spin: no violation as it is, and one for each ordering taken away
# (a model that cannot fail proves nothing).
here=$(dirname "$(readlink -f "$0")")
model=$here/grace.pml
. "$here/spin.bash"

expect 0
expect 1 -DNO_WRITER_FENCE
expect 1 -DNO_READER_FENCE
expect 1 -DNO_WAIT
expect 1 -DGENERATION_LATE
exit $status
