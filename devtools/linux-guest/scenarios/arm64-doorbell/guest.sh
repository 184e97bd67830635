# SPDX-License-Identifier: BSD-3-Clause

bring_up 1
ping -c 3 -w 3 10.77.1.1 > /tmp/ping || true
say doorbell-ping "$(grep transmitted /tmp/ping)"
say doorbell-interrupts "$(awk '/-input|-output/ { n += $2 } END { print n }' /proc/interrupts)"

# Where the interrupts went: the doorbell's IOVA is among the last pages of the input range, and nobody uses
# the memory that has these addresses (mem=512M). What was written is a vector's number.
page=$((0x7ff00000))
while [ $page -lt $((0x80000000)) ]; do
    value=$(devmem $((page + 0x40)) 32) || fail "cannot read memory at $page"
    [ "$value" = 0x00000000 ] || say doorbell-written "$(printf '%#x %s' $((page + 0x40)) "$value")"
    page=$((page + 4096))
done
