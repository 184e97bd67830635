// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <span>
#include <string>

#include "dma.hh"
#include "viommu_wire.hh"

namespace viommu::guest {

inline constexpr uint64_t bit(unsigned n) { return uint64_t{1} << n; }

/// Have a driver take `features`, and no device without them. `options`: IommuOptions, NetOptions.
template <class Options>
void require(Options& options, uint64_t features) {
    options.features |= features;
    options.required |= features;
}

/// What a driver may accept about its rings.
inline constexpr uint64_t kRingFeatures =
    bit(wire::VIRTIO_F_INDIRECT_DESC) | bit(wire::VIRTIO_F_EVENT_IDX) |
    bit(wire::VIRTIO_F_RING_PACKED) | bit(wire::VIRTIO_F_IN_ORDER);

/// What was negotiated about the format of a ring.
struct RingFormat {
    bool packed = false;
    bool event_idx = false;
    bool in_order = false;

    static constexpr RingFormat of(uint64_t acked) {
        return {(acked & bit(wire::VIRTIO_F_RING_PACKED)) != 0,
                (acked & bit(wire::VIRTIO_F_EVENT_IDX)) != 0,
                (acked & bit(wire::VIRTIO_F_IN_ORDER)) != 0};
    }
};

/// One buffer of a chain, as its descriptor says it.
struct Segment {
    BusAddress at;
    uint32_t bytes;
};

/// The flags that a descriptor has for its place in a chain, alike in both formats.
constexpr uint16_t chain_flags(bool writable, bool last) {
    return uint16_t((writable ? wire::VIRTQ_DESC_F_WRITE : 0) |
                    (last ? 0 : wire::VIRTQ_DESC_F_NEXT));
}

/// A chain that the device has returned.
struct Completion {
    uint16_t id;     ///< split: the descriptor it began with; packed: its buffer ID
    uint32_t bytes;  ///< what the device claims to have written
    uint64_t token;  ///< what it was added with
};

/// Whether who last looked at `before` has to be signalled at `now`, when the other side asked to
/// hear of `event` (virtio 1.3, 2.7.10; the kernel's vring_need_event()).
constexpr bool passed_event(uint16_t event, uint16_t now, uint16_t before) {
    return uint16_t(now - event - 1) < uint16_t(now - before);
}

/// The driver's side of a virtqueue in one of the two formats: what DriverQueue is made of, and the
/// bookkeeping that both have in common.
///
/// A chain in flight has an id below size(). The device names it by this id when it returns it;
/// with IN_ORDER the name stands for all older ones too, which were then used completely (2.7.9,
/// 2.8.9), and they are returned one by one, oldest first.
class Ring {
  public:
    virtual ~Ring() = default;
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    /// Addresses of the three parts, by the names of SET_VRING_ADDR: of a packed ring, `avail` is
    /// the driver's event suppression and `used` the device's.
    virtual BusAddress avail() const = 0;
    virtual BusAddress used() const = 0;

    /// The id that the next chain gets.
    virtual uint16_t next_id() const = 0;
    /// A chain; there must be room. Not seen by the device before publish().
    virtual void add(std::span<const Segment> readable, std::span<const Segment> writable,
                     uint64_t token) = 0;
    /// A chain whose descriptors are in `table`; `writable_bytes`: what the device may write.
    virtual void add_table(const Segment& table, uint64_t writable_bytes, uint64_t token) = 0;
    /// One entry of such a table.
    virtual wire::virtq_desc table_entry(const Segment& segment, bool write, uint16_t index,
                                         bool last) const = 0;
    virtual void publish() = 0;
    /// After publish(): whether the device wants to hear of what was published since this was last
    /// asked.
    virtual bool device_wants_signal() = 0;
    virtual std::optional<Completion> pop() = 0;
    virtual bool want_interrupts(bool wanted, uint16_t after) = 0;
    virtual uint32_t base() const = 0;

    uint16_t size() const { return size_; }
    uint16_t free_descriptors() const { return free_; }
    uint16_t in_flight() const { return chains_; }
    const DmaBlock& block() const { return ring_; }
    const std::string& broken() const { return broken_; }

  protected:
    Ring(DmaBlock ring, uint16_t size, RingFormat format)
        : ring_(std::move(ring)), slots_(size), format_(format), size_(size), free_(size) {}

    struct Slot {
        uint64_t token = 0;
        uint64_t writable_bytes = 0;
        uint16_t descriptors = 0;  // of the chain with this id; 0: none in flight
        uint16_t newer = 0;        // with IN_ORDER: the id of the chain that was added next
    };
    /// Chains that the device has returned together and pop() has not.
    struct Batch {
        uint16_t chains = 0;
        uint16_t descriptors = 0;
        uint16_t last = 0;
        uint32_t bytes = 0;  // of the last
    };

    template <class T>
    T& shared(uint64_t offset) const {
        return *reinterpret_cast<T*>(ring_.at(offset));
    }
    void remember(uint16_t id, uint16_t descriptors, uint64_t writable_bytes, uint64_t token);
    /// The device says that `id` is back. False, and broken(): it cannot be.
    bool begin_batch(uint32_t id, uint32_t bytes, uint16_t max_chains);
    /// The oldest of batch_, which has one; what it had is free again but for the format's own.
    Completion next_of_batch();

    DmaBlock ring_;
    std::vector<Slot> slots_;
    std::string broken_;
    Batch batch_;
    RingFormat format_;
    uint16_t size_;
    uint16_t free_;
    uint16_t chains_ = 0;
    uint16_t oldest_ = 0, newest_ = 0;  // with IN_ORDER
};

uint64_t total_bytes(std::span<const Segment> segments);

}  // namespace viommu::guest
