# SPDX-License-Identifier: BSD-3-Clause

use 1 32

# NIC 3 is another host's: in a network namespace of its own.
for n in 1 2 3; do
    await_nic $n
    say features $n "$(cat "/sys/class/net/$(nic $n)/device/features")"
done
near=$(nic 2) far=$(nic 3)
unshare -n sleep 1000 &
elsewhere=$!
there() { nsenter -t "$elsewhere" -n "$@"; }
not_here() { [ "$(readlink "/proc/$elsewhere/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
wait_for 5 not_here || fail "no network namespace"
ip link set "$far" netns "$elsewhere"
ip addr add 10.77.2.2/24 dev "$near"
ip link set "$near" up
there ip addr add 10.77.2.3/24 dev "$far"
there ip link set "$far" up

# between FROM TO ADDRESS: a stream from one namespace to the other.
between() {
    dd if=/dev/urandom of=/tmp/out bs=1M count=32 2> /dev/null
    # shellcheck disable=SC2016
    $2 nc -l -p 6001 -e sh -c 'cat > "$0"' /tmp/in &
    listener=$!
    start=$(centiseconds)
    tries=50
    until $1 nc "$3" 6001 -e cat /tmp/out 2> /dev/null; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || fail "no connection to $3"
        usleep 100000
    done
    wait $listener
    took=$(($(centiseconds) - start))
    [ "$(hash_of /tmp/in)" = "$(hash_of /tmp/out)" ] || fail "what came to $3 is not what was sent"
    say between "32 MiB $took cs"
    rm /tmp/in /tmp/out
}
here() { "$@"; }
between here there 10.77.2.3
between there here 10.77.2.2
