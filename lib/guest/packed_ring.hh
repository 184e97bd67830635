// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "ring.hh"

namespace viommu::guest {

/// Spec: virtio 1.3, 2.8. Layout: descriptor ring, then each event suppression structure at the
/// next multiple of 64 bytes, since each has another writer.
///
/// Buffer IDs are given out in order of a free list; with IN_ORDER that is round and round. Only
/// the last descriptor of a chain carries its ID, as 2.8.6 has it.
class PackedRing final : public Ring {
  public:
    static constexpr uint64_t bytes(uint32_t size) { return device_offset(size) + 4; }
    /// `size`: any from 1 to kMaxQueueSize.
    PackedRing(DmaBlock ring, uint16_t size, RingFormat format);

    BusAddress avail() const override { return ring_.bus + driver_; }
    BusAddress used() const override { return ring_.bus + device_; }
    uint16_t next_id() const override { return first_free_id_; }
    void add(std::span<const Segment> readable, std::span<const Segment> writable,
             uint64_t token) override;
    void add_table(const Segment& table, uint64_t writable_bytes, uint64_t token) override;
    wire::virtq_desc table_entry(const Segment& segment, bool write, uint16_t index,
                                 bool last) const override;
    void publish() override;
    bool device_wants_signal() override;
    std::optional<Completion> pop() override;
    bool want_interrupts(bool wanted, uint16_t after) override;
    /// Both positions, as QEMU's virtio_queue_packed_get_last_avail_idx() puts them: the available
    /// one in the lower half, the used one in the upper, each with its wrap counter in bit 15.
    uint32_t base() const override { return next_used_.value() * 0x10001u; }

  private:
    /// A place in the ring and its wrap counter.
    struct Position {
        uint16_t index = 0;
        bool wrap = true;

        void advance(uint16_t by, uint16_t size) {
            const uint32_t to = uint32_t{index} + by;
            if (to >= size) wrap = !wrap;
            index = uint16_t(to >= size ? to - size : to);
        }
        uint32_t value() const { return uint32_t{index} | (wrap ? 0x8000u : 0u); }
    };
    static constexpr uint64_t kLine = 64;
    static constexpr uint64_t driver_offset(uint32_t size) {
        return (wire::desc_table_bytes(size) + kLine - 1) / kLine * kLine;
    }
    static constexpr uint64_t device_offset(uint32_t size) { return driver_offset(size) + kLine; }
    static constexpr uint64_t flags_offset(uint16_t index) {
        return uint64_t{index} * sizeof(wire::pvirtq_desc) + offsetof(wire::pvirtq_desc, flags);
    }
    void put(const Segment& segment, uint16_t id, uint16_t flags);
    uint16_t take_id(uint16_t descriptors, uint64_t writable_bytes, uint64_t token);
    bool is_used(Position at) const;

    std::vector<uint16_t> next_id_;
    uint64_t driver_, device_;
    uint32_t unsignalled_ = 0;  // descriptors since device_wants_signal()
    Position next_avail_, next_used_;
    /// The first descriptor that was not published keeps its flags until then: no device passes it.
    struct Held {
        uint16_t index, flags;
    };
    std::optional<Held> held_;
    uint16_t first_free_id_ = 0;
};

}  // namespace viommu::guest
