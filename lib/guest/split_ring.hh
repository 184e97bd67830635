// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "ring.hh"

namespace viommu::guest {

/// Spec: virtio 1.3, 2.7. Layout is Linux's vring_init(): descriptor table, available ring with
/// used_event, padding to `align`, used ring with avail_event.
class SplitRing final : public Ring {
  public:
    static constexpr uint64_t bytes(uint32_t size, uint32_t align) {
        return used_offset(size, align) + wire::used_ring_bytes(size) + 2;
    }
    SplitRing(DmaBlock ring, uint16_t size, RingFormat format, uint32_t align);

    BusAddress avail() const override { return ring_.bus + avail_; }
    BusAddress used() const override { return ring_.bus + used_; }
    uint16_t next_id() const override { return first_free_; }
    void add(std::span<const Segment> readable, std::span<const Segment> writable,
             uint64_t token) override;
    void add_table(const Segment& table, uint64_t writable_bytes, uint64_t token) override;
    wire::virtq_desc table_entry(const Segment& segment, bool write, uint16_t index,
                                 bool last) const override;
    void publish() override;
    bool device_wants_signal() override;
    std::optional<Completion> pop() override;
    bool want_interrupts(bool wanted, uint16_t after) override;
    uint32_t base() const override { return next_used_; }

  private:
    static constexpr uint64_t used_offset(uint32_t size, uint32_t align) {
        const uint64_t end = wire::desc_table_bytes(size) + wire::avail_ring_bytes(size) + 2;
        return (end + align - 1) / align * align;
    }
    uint64_t used_event() const { return avail_ + wire::avail_ring_bytes(size_); }
    uint64_t avail_event() const { return used_ + wire::used_ring_bytes(size_); }
    void put(const Segment& segment, uint16_t flags);
    void offer(uint16_t head, uint16_t descriptors, uint64_t writable_bytes, uint64_t token);

    /// What follows a descriptor in a chain, and in the list of free ones. With IN_ORDER
    /// descriptors come back as they were taken, so that the next one is always the neighbour.
    std::vector<uint16_t> next_;
    uint64_t avail_, used_;
    uint32_t unsignalled_ = 0;  // entries since device_wants_signal()
    uint16_t first_free_ = 0;
    uint16_t next_avail_ = 0;
    uint16_t next_used_ = 0;
};

}  // namespace viommu::guest
