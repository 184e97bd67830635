# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The parts of a run with a Linux guest: a network namespace, the daemon, QEMU, the host's ends of
# the transfers, and the end of all of them. Sourced by `run`, which sets
#   fetched   the folder that fetch prints
#   work      a private folder for sockets, configuration and logs
#   namespace the name for the network namespace
#   build, nic, append, time_limit, keep   its options
# shellcheck disable=SC2154

readonly kTap=vtap0
readonly kMac=52:54:00:12:34:56
readonly kHostAddress=10.77.0.1
readonly kGuestAddress=10.77.0.2
readonly kTransferMib=32
readonly kIommuBdf=0000:00:03.0   # QEMU's addr=3
readonly kNicBdf=0000:00:04.0     # QEMU's addr=4
readonly kRamBytes=$((1 << 30))

declare -A started=()   # name -> process id, of what we have to end

note() { printf '%s\n' "$*" >&2; }

# fail WHAT: the run cannot go on.
fail() { note "run: $*"; show_logs; exit 1; }

show_logs() {
    local log
    for log in "$work"/*.log; do
        [[ -s $log ]] || continue
        note "--- last lines of $(basename "$log")"
        tail -n 30 "$log" | tr -d '\r' >&2
    done
}

in_namespace() { exec ip netns exec "$namespace" "$@"; }   # only in a subshell: keeps the process id

# start NAME COMMAND...: in the background, in the namespace, output into NAME.log.
start() {
    local name=$1
    shift
    in_namespace "$@" > "$work/$name.log" 2>&1 < /dev/null &
    started[$name]=$!
}

# Whether a process is still there and is our child (its id may have been given to another since).
runs() { grep -q "^PPid:[[:space:]]*$$\$" "/proc/$1/status" 2> /dev/null; }

# stop NAME: end it gently, then surely; returns its exit status.
stop() {
    local name=$1 pid=${started[$1]:-} tries
    [[ -n $pid ]] || return 0
    unset "started[$name]"
    if runs "$pid"; then kill -TERM "$pid"; fi
    for ((tries = 0; tries < 100; tries++)); do
        runs "$pid" || break
        sleep 0.1
    done
    if runs "$pid"; then kill -KILL "$pid"; fi
    wait "$pid"
}

make_namespace() {
    ip netns add "$namespace"
    ip -n "$namespace" link set lo up
}

configure_tap() {
    ip -n "$namespace" addr add "$kHostAddress/24" dev "$kTap" ||
        fail "the namespace has no $kTap: the daemon's net_tap should have made it"
    ip -n "$namespace" link set "$kTap" up
}

write_daemon_config() {
    # An aperture inside the guest's RAM: QEMU takes the addresses of rings for guest-physical ones.
    cat > "$work/viommu.toml" <<CONF
poll = "adaptive"
eal  = ["--no-huge", "-m", "256", "--no-pci", "--lcores", "0@0,1@0,2@1", "--file-prefix", "$namespace"]

[[guest]]
name        = "vm0"
socket      = "$work/iommu.sock"
lcore       = 1
input_range = { first = 0x1000000, last = $(printf '0x%x' $((kRamBytes - 1))) }
bypass      = true

  [[guest.net]]
  name     = "net0"
  socket   = "$work/net0.sock"
  endpoint = "$kNicBdf"
  mac      = "$kMac"
  peer     = "vdev:net_tap0,iface=$kTap"
  lcore    = 2
CONF
}

start_daemon() {
    local daemon=$build/app/viommu/dpdk-viommu tries
    write_daemon_config
    "$daemon" viot --iommu "$kIommuBdf" --endpoint "$kNicBdf" --body --output "$work/viot.body" ||
        fail "dpdk-viommu viot failed"
    start daemon timeout -k 5 $((time_limit + 60)) "$daemon" --config "$work/viommu.toml"
    for ((tries = 0; tries < 300; tries++)); do
        if grep -q '^dpdk-viommu: ready' "$work/daemon.log"; then return; fi
        runs "${started[daemon]}" || fail "the daemon ended before it was ready"
        sleep 0.1
    done
    fail "the daemon is not ready after 30 s"
}

# The host's ends. As nc's child a stream ends when the file does, whatever comes the other way.
start_peers() {
    local busybox=$fetched/busybox
    head -c $((kTransferMib << 20)) /dev/urandom > "$work/to-guest"
    : > "$work/from-guest.sha256"
    # shellcheck disable=SC2016
    start receiver timeout "$time_limit" "$busybox" nc -l -p 5001 \
        -e "$busybox" sh -c '"$0" sha256sum > "$1"' "$busybox" "$work/from-guest.sha256"
    start sender timeout "$time_limit" "$busybox" nc -l -p 5002 -e "$busybox" cat "$work/to-guest"
}

# The arguments that make the IOMMU and the NIC, one per line.
device_arguments() {
    local net="addr=4,netdev=n1,mac=$kMac,iommu_platform=on,disable-legacy=on"
    if [[ $nic == qemu ]]; then
        printf '%s\n' -device "virtio-iommu-pci,addr=3" \
            -netdev "tap,id=n1,ifname=$kTap,script=no,downscript=no,vhost=off" \
            -device "virtio-net-pci,$net"
        return
    fi
    printf '%s\n' -acpitable "sig=VIOT,data=$work/viot.body" \
        -chardev "socket,id=c0,path=$work/iommu.sock" \
        -device "vhost-user-test-device-pci,addr=3,virtio-id=23,num_vqs=2,config_size=40,chardev=c0" \
        -chardev "socket,id=c1,path=$work/net0.sock"
    if [[ $nic == generic ]]; then
        # The third queue is for control, should the daemon offer it. A ring of 1024 is several
        # pages long, which an IOMMU lets the guest scatter.
        printf '%s\n' -device "vhost-user-test-device-pci,addr=4,virtio-id=1,$(
            )num_vqs=2,vq_size=1024,config_size=12,chardev=c1,iommu_platform=on"
        return
    fi
    # QEMU would keep the control queue and read it untranslated: all that needs one is off.
    net+=,ctrl_vq=off,ctrl_rx=off,ctrl_vlan=off,ctrl_rx_extra=off,ctrl_mac_addr=off
    net+=,guest_announce=off,ctrl_guest_offloads=off,mq=off
    printf '%s\n' -netdev "vhost-user,id=n1,chardev=c1" -device "virtio-net-pci,$net"
}

start_guest() {
    local -a devices
    "$here/mkinitrd" "$fetched" "$work/initrd"
    mapfile -t devices < <(device_arguments)
    start guest timeout -k 5 "$time_limit" "$fetched/qemu-system-x86_64" \
        -accel tcg -M q35 -m "$((kRamBytes >> 20))M" -smp 1 \
        -object "memory-backend-memfd,id=mem,size=$kRamBytes,share=on" -numa node,memdev=mem \
        -nographic -nodefaults -serial stdio -no-reboot \
        -kernel "$fetched/kernel/vmlinuz" -initrd "$work/initrd" \
        -append "console=ttyS0 panic=-1 viommu.ip=$kGuestAddress/24 viommu.peer=$kHostAddress $(
            )viommu.mib=$kTransferMib${append:+ $append}" "${devices[@]}"
}

# Until the guest has powered off. A daemon that ends meanwhile ends the run.
wait_for_guest() {
    local ended status=0
    wait -n -p ended "${started[guest]}" ${started[daemon]:+"${started[daemon]}"} || status=$?
    if [[ $ended != "${started[guest]}" ]]; then
        unset "started[daemon]"
        fail "the daemon ended, with status $status, while the guest ran"
    fi
    unset "started[guest]"
    case $status in
    0) ;;
    124 | 137) fail "the guest did not finish in $time_limit s" ;;
    *) fail "QEMU ended with status $status" ;;
    esac
}

# The host's ends finish once their transfers did; none of them waits for long.
wait_for_peers() {
    local name tries
    for name in receiver sender; do
        for ((tries = 0; tries < 50; tries++)); do
            runs "${started[$name]}" || break
            sleep 0.1
        done
        stop "$name" || true
    done
}

# Whatever is left, on every way out.
clean_up() {
    local name
    set +e
    trap '' INT TERM HUP
    for name in "${!started[@]}"; do stop "$name" 2> /dev/null; done
    if [[ -n $namespace ]]; then
        ip netns del "$namespace" 2> /dev/null
        rm -rf "/var/run/dpdk/$namespace"
    fi
    if [[ -n $keep ]]; then
        note "run: logs are in $work"
    elif [[ -n $work ]]; then
        rm -rf "$work"
    fi
}
