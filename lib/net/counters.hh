// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "viommu_base.hh"

namespace viommu::net {

/// One direction of a port. Written by the port's lcore; read by any thread.
struct Counters {
    Counter packets;
    Counter bytes;  ///< of packets, without the virtio-net header
    // Drops: a packet each.
    Counter drop_fault;      ///< a buffer does not translate, or does not allow the access
    Counter drop_malformed;  ///< a chain breaks the spec, or is too short, or its header is wrong
    Counter drop_too_big;    ///< larger than the MTU, or than the guest's buffer
    Counter drop_no_mbuf;    ///< the packet pool was exhausted in the middle of a packet
    Counter drop_filtered;   ///< the guest has said that it does not want such packets
    Counter drop_offload;    ///< what the packet's flags ask for does not agree with the packet
    Counter drop_rest;       ///< cut for the guest, whose buffers ran out before the last piece
    Counter segmented;  ///< not a drop: cut into packets, which are counted in its place
    // Not drops: the packet stays where it is.
    Counter no_mbuf;      ///< bursts cut short because the packet pool was exhausted
    Counter no_buffer;    ///< packets offered while the guest had no buffer
    Counter not_running;  ///< packets offered while the queue was stopped, stalled or not in use
    // The queue's own misfortunes.
    Counter bad_buffer;     ///< receive buffers returned unused: malformed, or under a header long
    Counter ring_unmapped;  ///< times that the ring could not be translated (any more)
    Counter ring_broken;    ///< times that the ring made no sense; it stays so until restarted
    Counter ring_unusable;  ///< times that the frontend gave addresses that cannot be a ring

    /// f(name, value)
    template <class F>
    void for_each(F&& f) const {
        f("packets", packets.was());
        f("bytes", bytes.was());
        f("drop_fault", drop_fault.was());
        f("drop_malformed", drop_malformed.was());
        f("drop_too_big", drop_too_big.was());
        f("drop_no_mbuf", drop_no_mbuf.was());
        f("drop_filtered", drop_filtered.was());
        f("drop_offload", drop_offload.was());
        f("drop_rest", drop_rest.was());
        f("segmented", segmented.was());
        f("no_mbuf", no_mbuf.was());
        f("no_buffer", no_buffer.was());
        f("not_running", not_running.was());
        f("bad_buffer", bad_buffer.was());
        f("ring_unmapped", ring_unmapped.was());
        f("ring_broken", ring_broken.was());
        f("ring_unusable", ring_unusable.was());
    }
};

}  // namespace viommu::net
