// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>

#include "packed_ring.hh"
#include "split_ring.hh"

namespace viommu::guest {

/// The driver's side of a virtqueue, split or packed, with or without EVENT_IDX, IN_ORDER and
/// indirect descriptors: what was negotiated decides.
///
/// The ring is one allocation, contiguous at bus addresses only: every access looks its page up,
/// and nothing that crosses a page is touched as one.
///
/// The device under test may be wrong, so what it writes is checked: a queue that saw something
/// impossible is broken() and returns nothing any more.
///
/// Spec:    virtio 1.3, 2.7 and 2.8
/// Threads: one. Against the device: avail.idx, or the flags of the first new descriptor, are
///          stored with release, and their partner is the device's acquire load; used.idx, or a
///          used descriptor's flags, are loaded with acquire, and their partner is the device's
///          release store; kick() has a full fence between its store and its load of what the
///          device says about signals, whose partner is the device's fence the other way round.
class DriverQueue {
  public:
    static constexpr uint32_t kDefaultAlign = 64;  // what Linux uses with virtio 1.x over PCI

    /// Bytes of the allocation for `size` entries.
    static constexpr uint64_t ring_bytes(uint32_t size, RingFormat format = {},
                                         uint32_t align = kDefaultAlign) {
        return format.packed ? PackedRing::bytes(size) : SplitRing::bytes(size, align);
    }
    /// Whether such a queue can exist: from 1 to kMaxQueueSize, a power of two unless packed.
    static constexpr bool is_size(uint32_t size, RingFormat format) {
        return size != 0 && size <= wire::kMaxQueueSize &&
               (format.packed || (size & (size - 1)) == 0);
    }

    /// `ring`: zeroed, ring_bytes() long. `kick_fd`: the caller's; -1: the device polls. `align`:
    /// of a split ring.
    DriverQueue(DmaBlock ring, uint16_t size, int kick_fd, RingFormat format = {},
                uint32_t align = kDefaultAlign);

    uint16_t size() const { return ring_->size(); }
    const DmaBlock& ring() const { return ring_->block(); }
    /// The parts, by the names of SET_VRING_ADDR: of a packed ring, avail() is the driver's event
    /// suppression and used() the device's.
    BusAddress desc() const { return ring_->block().bus; }
    BusAddress avail() const { return ring_->avail(); }
    BusAddress used() const { return ring_->used(); }

    /// Write a chain: what the device reads, then what it writes. The device sees it after
    /// publish(). False: not enough free descriptors, or no segment; nothing was done.
    bool add(std::span<const Segment> readable, std::span<const Segment> writable, uint64_t token);

    /// Memory for one indirect table per descriptor, of `max_segments` entries each.
    static constexpr uint64_t indirect_bytes(uint32_t size, uint32_t max_segments) {
        return uint64_t{size} * max_segments * sizeof(wire::virtq_desc);
    }
    void use_indirect(DmaBlock tables, uint32_t max_segments);
    /// The same chain in an indirect table, using one descriptor of the ring. Also false: longer
    /// than a table.
    bool add_indirect(std::span<const Segment> readable, std::span<const Segment> writable,
                      uint64_t token);

    /// Let the device see what was added.
    void publish() { ring_->publish(); }
    /// publish(), then signal the device unless it says that it does not want it. Returns whether.
    bool kick();

    /// The next chain that the device has returned; its descriptors are free again.
    std::optional<Completion> pop() { return ring_->pop(); }

    /// Ask the device to signal its call fd when it returns something, or not to. With EVENT_IDX:
    /// only when it returns the entry `after` entries (split: chains; packed: descriptors, less
    /// than size()) behind the next one. Returns whether it has returned that already, so that no
    /// signal may come; this is reliable: a device that did not see the wish is seen.
    ///
    /// Without EVENT_IDX `after` is not for the device. With it, a split queue of which nobody asks
    /// again gives a signal that is not wanted every 65536 entries.
    bool want_interrupts(bool wanted, uint16_t after = 0) {
        return ring_->want_interrupts(wanted, after);
    }

    /// What a device that has returned everything up to the last pop(), and holds nothing else,
    /// answers to GET_VRING_BASE. Of a packed ring the upper half repeats the lower.
    uint32_t base() const { return ring_->base(); }

    uint16_t free_descriptors() const { return ring_->free_descriptors(); }
    uint16_t in_flight() const { return ring_->in_flight(); }
    /// Why this queue cannot be used any more; empty: it can.
    const std::string& broken() const { return ring_->broken(); }

  private:
    std::unique_ptr<Ring> ring_;
    DmaBlock tables_;
    uint32_t max_indirect_ = 0;
    int kick_fd_;
};

}  // namespace viommu::guest
