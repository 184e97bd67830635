// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string>

#include "dma.hh"
#include "viommu_wire.hh"

namespace viommu::guest {

/// One buffer of a chain, as its descriptor says it.
struct Segment {
    BusAddress at;
    uint32_t bytes;
};

/// A chain that the device has returned.
struct Completion {
    uint16_t head;   ///< the descriptor it began with
    uint32_t bytes;  ///< what the device claims to have written
    uint64_t token;  ///< what it was added with
};

/// The driver's side of a split virtqueue.
///
/// Layout is Linux's vring_init(): one allocation with descriptor table, available ring, padding to
/// `align`, used ring; the two event fields are there, EVENT_IDX is not negotiated. The allocation
/// is contiguous at bus addresses only: every access looks its page up, and nothing that crosses a
/// page is touched as one.
///
/// The device under test may be wrong, so what it writes is checked: a queue that saw something
/// impossible is broken() and returns nothing any more.
///
/// Spec:    virtio 1.3, 2.7
/// Threads: one. Against the device: avail.idx is stored with release, its partner is the device's
///          acquire load; used.idx is loaded with acquire, its partner is the device's release
///          store; kick() has a full fence between its store of avail.idx and its load of
///          used.flags, whose partner is the device's fence between flags and avail.idx.
class DriverQueue {
  public:
    static constexpr uint32_t kDefaultAlign = 64;  // what Linux uses with virtio 1.x over PCI

    /// Bytes of the allocation for `size` entries, a power of two up to kMaxQueueSize.
    static constexpr uint64_t ring_bytes(uint32_t size, uint32_t align = kDefaultAlign) {
        return used_offset(size, align) + wire::used_ring_bytes(size) + 2;
    }

    /// `ring`: zeroed, ring_bytes() long. `kick_fd`: the caller's; -1: the device polls.
    DriverQueue(DmaBlock ring, uint16_t size, int kick_fd, uint32_t align = kDefaultAlign);

    uint16_t size() const { return size_; }
    const DmaBlock& ring() const { return ring_; }
    BusAddress desc() const { return ring_.bus; }
    BusAddress avail() const { return ring_.bus + avail_; }
    BusAddress used() const { return ring_.bus + used_; }

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
    void publish();
    /// publish(), then signal the device unless it says it does not want it. Returns whether.
    bool kick();

    /// The next chain that the device has returned; its descriptors are free again.
    std::optional<Completion> pop();

    /// Ask the device to signal its call fd, or not to (VIRTQ_AVAIL_F_NO_INTERRUPT).
    void want_interrupts(bool wanted);

    uint16_t free_descriptors() const { return free_; }
    uint16_t in_flight() const { return chains_; }
    /// Why this queue cannot be used any more; empty: it can.
    const std::string& broken() const { return broken_; }

  private:
    struct Slot {
        uint16_t next;
        uint16_t descriptors;  // of the chain that begins here; 0: none does
        uint64_t token;
    };
    static constexpr uint64_t used_offset(uint32_t size, uint32_t align) {
        const uint64_t end = wire::desc_table_bytes(size) + wire::avail_ring_bytes(size) + 2;
        return (end + align - 1) / align * align;
    }
    template <class T>
    T& shared(uint64_t offset) const {
        return *reinterpret_cast<T*>(ring_.at(offset));
    }
    void write_descriptor(uint16_t index, const Segment& segment, uint16_t flags, uint16_t next);
    void offer(uint16_t head, uint16_t descriptors, uint64_t token);

    DmaBlock ring_;
    DmaBlock tables_;
    std::vector<Slot> slots_;
    std::string broken_;
    uint64_t avail_, used_;
    uint32_t max_indirect_ = 0;
    uint16_t size_;
    uint16_t free_;
    uint16_t first_free_ = 0;
    uint16_t chains_ = 0;
    uint16_t next_avail_ = 0;
    uint16_t next_used_ = 0;
    int kick_fd_;
};

}  // namespace viommu::guest
