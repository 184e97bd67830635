# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The daemon's configuration and QEMU's command line, from what the scenario has set (see run).
# Sourced by `run` and `pktgen`.
# shellcheck disable=SC2154

readonly kIommuBdf=0000:00:03.0   # QEMU's addr=3
readonly kRamBytes=$((1 << 30))

# What is as most want it; set these to have it otherwise.
iommu=daemon                    # whose virtio-iommu: daemon, qemu, or none
accel=tcg                       # QEMU's -accel
poll=adaptive                   # the daemon's
lcores=0@0,1@0,2@1 net_lcore=2  # EAL's --lcores; the IOMMU is always lcore 1's
smp=1                           # the guest's CPUs
queue_pairs=1 control_queue=''  # of each NIC; non-empty: its control queue is the daemon's (--nic generic)
place_guest=() place_backend=() # commands to start QEMU and what serves it with, e.g. taskset

mac() { printf '52:54:00:12:34:5%s\n' "$1"; }

# Where NIC N is: for QEMU, and for everyone else. Scenarios may define others.
nic_place() { printf 'addr=%s\n' $((3 + $1)); }
nic_bdf() { printf '0000:00:%02x.0\n' $((3 + $1)); }

# The daemon's peer of NIC N's port. Others may be defined.
nic_peer() { printf 'vdev:net_tap%d,iface=vtap%d\n' "$1" "$1"; }

# Whether NIC N has a tap.
has_tap() { true; }

# More arguments for QEMU, one per line, before those of the NICs. Scenarios may define others.
extra_devices() { :; }

write_daemon_config() {
    local n ram=0
    [[ $arch == x86_64 ]] || ram=$((1 << 30))
    # An aperture inside the guest's RAM: QEMU takes the addresses of rings for guest-physical ones.
    cat <<CONF
poll = "$poll"
eal  = ["--no-huge", "-m", "256", "--no-pci", "--lcores", "$lcores", "--file-prefix", "$namespace",
        "--log-level=viommu.vhost:debug"]

[[guest]]
name        = "vm0"
socket      = "$work/iommu.sock"
lcore       = 1
input_range = { first = $((ram + 0x1000000)), last = $((ram + kRamBytes - 1)) }
bypass      = true
$iommu_keys
CONF
    for ((n = 1; n <= nics; n++)); do
        cat <<CONF

  [[guest.net]]
  name     = "net$n"
  socket   = "$work/net$n.sock"
  endpoint = "$(nic_bdf "$n")"
  mac      = "$(mac "$n")"
  peer     = "$(nic_peer "$n")"
  lcore    = $net_lcore
  queue_pairs   = $queue_pairs
  control_queue = $([[ -n $control_queue ]] && echo true || echo false)
CONF
    done
}

start_daemon() {
    local daemon=$build/app/viommu/dpdk-viommu n endpoints=()
    write_daemon_config > "$work/viommu.toml"
    for ((n = 1; n <= nics; n++)); do endpoints+=(--endpoint "$(nic_bdf "$n")"); done
    "$daemon" viot --iommu "$kIommuBdf" "${endpoints[@]}" --body --output "$work/viot.body" ||
        fail "dpdk-viommu viot failed"
    start daemon "${place_backend[@]}" timeout -k 30 $((time_limit + 60)) \
        "$daemon" --config "$work/viommu.toml"
    wait_until_ready daemon '^dpdk-viommu: ready' 30
}

# Arm's QEMU takes no ACPI table, so the guest learns what is behind the IOMMU from the devicetree: the one
# that QEMU makes for these arguments, and two things more.
write_devicetree() {
    local dtb=$work/guest.dtb bus=/pcie@10000000 iommu phandle=0x9000 map=() n id
    command -v fdtput > /dev/null || fail "needs fdtput: apt-get install device-tree-compiler"
    "$fetched/qemu-system-$arch" "$@" -M "dumpdtb=$dtb" > "$work/dumpdtb.log" 2>&1 ||
        fail "QEMU does not dump its devicetree: $(cat "$work/dumpdtb.log")"
    # The node of a PCI function begins with its place on the bus: device << 11 | function << 8.
    iommu=$bus/iommu@3,0
    fdtput -c "$dtb" "$iommu"
    fdtput -t s "$dtb" "$iommu" compatible virtio,pci-iommu
    fdtput -t x "$dtb" "$iommu" reg "$(printf %x $((3 << 11)))" 0 0 0 0
    fdtput -t x "$dtb" "$iommu" '#iommu-cells' 1
    fdtput -t x "$dtb" "$iommu" phandle "$phandle"
    # Requester ID, IOMMU, endpoint ID, how many.
    for ((n = 1; n <= nics; n++)); do
        id=$(requester_id "$(nic_bdf "$n")")
        map+=("$id" "$phandle" "$id" 1)
    done
    fdtput -t x "$dtb" "$bus" iommu-map "${map[@]}"
}

# requester_id SEGMENT:BUS:DEVICE.FUNCTION: in hexadecimal, as fdtput -t x reads it.
requester_id() {
    local bus device function
    IFS=':.' read -r _ bus device function <<< "$1"
    printf '%x' $((16#$bus << 8 | 16#$device << 3 | function))
}

# QEMU's -device for NIC N, whose back end is there.
nic_device() {
    local net queues=$((2 * queue_pairs)) config_size=12
    # With RSS the structure is longer.
    [[ -z $control_queue ]] || queues=$((queues + 1)) config_size=24
    if [[ $nic == generic ]]; then
        # A ring of 1024 is several pages long, which an IOMMU lets the guest scatter.
        net="vhost-user-test-device-pci,id=nic$1,$(nic_place "$1"),virtio-id=1,num_vqs=$queues,vq_size=1024"
        printf '%s\n' "$net,config_size=$config_size,chardev=c$1,iommu_platform=on"
        return
    fi
    net="virtio-net-pci,id=nic$1,$(nic_place "$1"),netdev=n$1,mac=$(mac "$1"),disable-legacy=on"
    [[ $iommu == none ]] || net+=,iommu_platform=on
    # The way for QEMU to send the translations of its own IOMMU to a vhost-user back end.
    [[ $nic != pci || $iommu != qemu ]] || net+=,ats=on
    if [[ $nic == pci ]]; then
        # QEMU would keep the control queue and read it untranslated: all that needs one is off.
        net+=,ctrl_vq=off,ctrl_rx=off,ctrl_vlan=off,ctrl_rx_extra=off,ctrl_mac_addr=off
        net+=,guest_announce=off,ctrl_guest_offloads=off,mq=off
    fi
    printf '%s\n' "$net"
}

# The arguments that make the IOMMU and the NICs, one per line.
device_arguments() {
    local n
    case $iommu in
    qemu) printf '%s\n' -device "virtio-iommu-pci,addr=3" ;;
    daemon)
        [[ $arch != x86_64 ]] || printf '%s\n' -acpitable "sig=VIOT,data=$work/viot.body"
        printf '%s\n' -chardev "socket,id=c0,path=$work/iommu.sock" \
            -device "vhost-user-test-device-pci,addr=3,virtio-id=23,num_vqs=2,config_size=40,chardev=c0"
        ;;
    esac
    extra_devices
    for ((n = 1; n <= nics; n++)); do
        if [[ $nic == qemu ]]; then
            printf '%s\n' -netdev "tap,id=n$n,ifname=vtap$n,script=no,downscript=no,vhost=off"
        else
            printf '%s\n' -chardev "socket,id=c$n,path=$work/net$n.sock"
        fi
        [[ $nic != pci ]] || printf '%s\n' -netdev "vhost-user,id=n$n,chardev=c$n"
        printf '%s\n' -device "$(nic_device "$n")"
    done
}

# The arguments that make the machine, one per line.
machine_arguments() {
    printf '%s\n' -accel "$accel" -m "$((kRamBytes >> 20))M" -smp "$smp" -nographic -nodefaults -serial stdio \
        -object "memory-backend-memfd,id=mem,size=$kRamBytes,share=on"
    if [[ $arch == x86_64 ]]; then
        printf '%s\n' -M q35,memory-backend=mem
    else
        printf '%s\n' -M "$arm_machine" -cpu cortex-a72
    fi
    [[ -n $reboots ]] || printf '%s\n' -no-reboot
}

# A static program for the guest from test/linux/NAME.cc.
build_program() {
    "${CXX:-g++}" -std=c++20 -O1 -Wall -Wextra -Werror -static -o "$work/$1" "$here/../../test/linux/$1.cc" ||
        fail "cannot build test/linux/$1.cc"
}

start_guest() {
    local -a devices machine options=()
    local console=ttyS0 program
    [[ $arch == x86_64 ]] || console=ttyAMA0
    for program in "${programs[@]}"; do
        build_program "$program"
        options+=(--program "$work/$program")
    done
    "$here/mkinitrd" --arch "$arch" --script "$script" "${options[@]}" "$fetched" "$work/initrd" \
        "${modules[@]}"
    mapfile -t machine < <(machine_arguments)
    mapfile -t devices < <(device_arguments)
    if [[ $arch == aarch64 ]]; then
        write_devicetree "${machine[@]}"
        machine+=(-dtb "$work/guest.dtb")
    fi
    if [[ -n $qmp ]]; then
        mkfifo "$work/qmp.in" "$work/qmp.out"
        devices+=(-chardev "pipe,id=qmp,path=$work/qmp" -mon "chardev=qmp,mode=control")
        start qmp cat "$work/qmp.out"
    fi
    start guest "${place_guest[@]}" timeout -k 5 "$time_limit" "$fetched/qemu-system-$arch" "${machine[@]}" \
        -kernel "$fetched/$arch/vmlinuz" -initrd "$work/initrd" \
        -append "console=$console panic=-1${append:+ $append}" "${devices[@]}"
    if [[ -n $qmp ]]; then
        wait_for_line qmp.log '"QMP"' 20
        tell_qemu '{"execute": "qmp_capabilities"}'
    fi
}

tell_qemu() { printf '%s\n' "$1" > "$work/qmp.in"; }
