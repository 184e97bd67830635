# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about='the NIC unplugged from a PCIe root port and plugged in again, twice, with traffic after each'
transfers=3 stream_mib=8 qmp=1

# The only slot behind the root port, which is all that is on bus 1.
extra_devices() { printf '%s\n' -device pcie-root-port,id=slot1,bus=pcie.0,addr=5,chassis=1; }
nic_place() { printf 'bus=slot1,addr=0\n'; }
nic_bdf() { printf '0000:01:00.0\n'; }

drive() {
    local round
    for round in 1 2; do
        wait_for_line guest.log "^@viommu unplug $round" 60
        tell_qemu '{"execute": "device_del", "arguments": {"id": "nic1"}}'
        wait_for_line guest.log "^@viommu unplugged $round" 60
        wait_for_deleted "$round"
        # The human's device_add takes what the command line takes.
        tell_qemu '{"execute": "human-monitor-command", "arguments": {"command-line": "device_add '"$(nic_device 1)"'"}}'
    done
}

# QEMU says DEVICE_DELETED for the device and for its parts, which have no id.
wait_for_deleted() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        (($(grep -c '"DEVICE_DELETED".*"device": "nic1"' "$work/qmp.log") < $1)) || return 0
        sleep 0.1
    done
    fail "QEMU did not delete the NIC"
}

check_counters() {
    # The IOMMU is not reset: each plug attaches, each unplug detaches.
    expect_counter 'guest\.vm0\.requests\.attach' -eq 3
    expect_counter 'guest\.vm0\.requests\.detach' -eq 2
    expect_counter 'guest\.vm0\.resets' -eq 1
    expect_counter 'guest\.vm0\.requests\.(map|unmap)' -gt 0
    expect_counter 'guest\.vm0\.faults\..*' -eq 0
}

check_more() {
    local complaint
    complaint=$(grep -m 1 -i 'error' "$work/qmp.log") || true
    expect "QEMU: $complaint" same "none$complaint" none
}
