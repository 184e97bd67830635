# SPDX-License-Identifier: BSD-3-Clause

bring_up 1
bring_up 2
for n in 1 2; do
    ping_host $n
    receive $n
done
# Both at the same time.
send 1 8 &
send 2 8
wait
