#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Check test/model/grace.pml with spin: no violation as it is, and one for each ordering taken away
# (a model that cannot fail proves nothing).
set -euo pipefail
model=$(readlink -f "$(dirname "$0")/grace.pml")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# errors [DEFINE...]: how many violations the exhaustive search finds (it stops at the first).
errors() {
    spin -a "$@" "$model" >/dev/null
    cc -O2 -DSAFETY -DNOREDUCE -DMEMLIM=4096 -o pan pan.c 2>/dev/null
    ./pan -m100000 >pan.out 2>&1
    grep -q 'Search not completed\|max search depth too small' pan.out && ! grep -q 'errors: 1' pan.out &&
        { cat pan.out >&2; exit 1; }
    sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out
}

status=0
expect() {
    local want=$1 got
    shift
    got=$(errors "$@")
    echo "errors: $got (expected $want) ${*:-as it is}; $(sed -n 's/ *\([0-9.e+]*\) states, stored.*/\1 states/p' pan.out)"
    [ "$got" = "$want" ] || status=1
}
expect 0
expect 1 -DNO_WRITER_FENCE
expect 1 -DNO_READER_FENCE
expect 1 -DNO_WAIT
expect 1 -DGENERATION_LATE
exit $status
