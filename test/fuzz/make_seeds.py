#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Write the seeds that are sequences: what a well-behaved peer does, in the targets' encodings.

    test/fuzz/make_seeds.py         # into test/fuzz/corpus; the other seeds are written by hand
"""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"

# --- vhost: vhost_fuzz.cc, Session::message() -----------------------------------------------------

KINDS = [1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 21, 24, 25]
(GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE, NUM, ADDR, BASE, GET_BASE, KICK,
 CALL, ERR, GET_PROTOCOL, SET_PROTOCOL, QUEUE_NUM, ENABLE, BACKEND_FD, GET_CONFIG,
 SET_CONFIG) = range(len(KINDS))
KICK_QUEUE, OFFER, SYNCHRONISE, AGAIN, SECOND = b"\xc4", b"\xc0", b"\xc7", b"\xc5\x03", b"\xc5\x00"


def message(kind, fields=b"", ack=True):
    """kind, fields, need_reply, nothing distorted, the right fds."""
    return bytes([kind]) + fields + bytes([ack, 0, 0])


def queue_up(q, order):
    parts = {
        "num": message(NUM, bytes([q, 0])),          # 16 entries
        "addr": message(ADDR, bytes([q, 0, 0, 0, 0])),  # desc, avail, used, flags
        "base": message(BASE, bytes([q, 0])),
        "kick": message(KICK, bytes([q, 0])),
        "call": message(CALL, bytes([q, 0])),
        "err": message(ERR, bytes([q, 0])),
        "enable": message(ENABLE, bytes([q, 1])),
    }
    return b"".join(parts[name] for name in order)


def request(kind):
    probe = struct.pack("<B3xI64x", 5, 0x20)
    attach = struct.pack("<B3xIII4x", 1, 1, 0x20, 0) + bytes(16)
    map_ = struct.pack("<B3xIQQQI", 3, 1, 0x100000, 0x100fff, 0x1000, 3)
    unmap = struct.pack("<B3xIQQ4x", 4, 1, 0x100000, 0x100fff) + bytes(8)
    body = {"probe": probe, "attach": attach, "map": map_, "unmap": unmap}[kind]
    return OFFER + b"\0" + (b"\x80" if kind == "probe" else b"\0") + body


def work():
    return b"".join(request(k) + SYNCHRONISE for k in ("probe", "attach", "map", "unmap"))


def features(index):
    return message(SET_FEATURES, bytes([index, 0]))


def mem_table(count_index=0, regions=1):
    return message(SET_MEM_TABLE, bytes([count_index]) + b"\0\0" * regions)


def qemu(which):
    """docs/interop/vhost-user.rst and hw/virtio/vhost.c: initialise, start, stop, start again."""
    hello = (message(GET_FEATURES, ack=False) + message(GET_PROTOCOL, ack=False) +
             message(SET_PROTOCOL, b"\0") + message(QUEUE_NUM, ack=False) +
             message(BACKEND_FD) + message(SET_OWNER) + message(GET_FEATURES, ack=False))
    call = message(CALL, b"\0\0") + message(CALL, b"\1\0")
    order = ["num", "base", "addr", "kick", "call", "err"]
    start = (features(0) + mem_table() + queue_up(0, order) + queue_up(1, order) +
             message(ENABLE, b"\0\1") + message(ENABLE, b"\1\1"))
    stop = (message(ENABLE, b"\0\0") + message(ENABLE, b"\1\0") +
            message(GET_BASE, b"\0", ack=False) + message(GET_BASE, b"\1", ack=False))
    return bytes([which]) + hello + call + start + work() + stop + start + request("probe") + SYNCHRONISE


def cloud_hypervisor(which):
    """vhost_user_common.rs: features early, addresses before the base, enable last."""
    order = ["num", "addr", "base", "call", "kick", "enable"]
    return (bytes([which]) + message(SET_OWNER) + message(GET_FEATURES, ack=False) +
            features(0) + message(GET_PROTOCOL, ack=False) + message(SET_PROTOCOL, b"\0") +
            message(QUEUE_NUM, ack=False) + message(GET_CONFIG, b"\0\0\0\0\0", ack=False) +
            features(0) + mem_table() + queue_up(0, order) + queue_up(1, order) + work() +
            mem_table(3, 2) + KICK_QUEUE + b"\0" + SECOND + AGAIN + features(0))


def main():
    seeds = {}
    for which, name in enumerate(["iommu", "net0", "net1"]):
        seeds[f"vhost/qemu-{name}"] = qemu(which)
        seeds[f"vhost/cloud-hypervisor-{name}"] = cloud_hypervisor(which)
    for name, content in seeds.items():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
