# SPDX-License-Identifier: BSD-3-Clause
# Sourced by the scripts here: exhaustive searches of $model, in a folder of its own.
set -euo pipefail
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
# expect ERRORS [DEFINE...]
expect() {
    local want=$1 got
    shift
    got=$(errors "$@")
    echo "errors: $got (expected $want) ${*:-as it is}; $(sed -n 's/ *\([0-9.e+]*\) states, stored.*/\1 states/p' pan.out)"
    [ "$got" = "$want" ] || status=1
}
