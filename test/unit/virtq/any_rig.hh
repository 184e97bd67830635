// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "packed_driver.hh"
#include "reference_driver.hh"

namespace viommu::virtq::test {

inline constexpr uint64_t kPacked = feature(wire::VIRTIO_F_RING_PACKED);
inline constexpr uint64_t kEvents = feature(wire::VIRTIO_F_EVENT_IDX);
inline constexpr uint64_t kInOrder = feature(wire::VIRTIO_F_IN_ORDER);

/// A queue of either format and its driver.
struct AnyRig {
    struct Shape {
        uint32_t size = 8;
        uint64_t features = 0;
        uint32_t base = PackedQueue<PageSpace>::kFreshBase;
        bool scattered = false;
        uint32_t desc_skew = 0, avail_skew = 0, used_skew = 0;  ///< bytes past a page boundary

        bool packed() const { return (features & kPacked) != 0; }
    };
    static Vring vring(const Shape& s) {
        Vring v = Rig::vring({.size = s.size,
                              .desc_skew = s.desc_skew,
                              .avail_skew = s.avail_skew,
                              .used_skew = s.used_skew});
        v.base = s.packed() ? s.base : uint16_t(s.base);
        return v;
    }

    explicit AnyRig(const Shape& s, size_t data_pages = 16, size_t table_pages = 4)
        : shape(s), space(data_pages + table_pages + 8 + 28 * s.size / kPage) {
        const Vring v = vring(s);
        space.add(v.desc, wire::desc_table_bytes(s.size), s.scattered);
        space.add(v.avail, s.packed() ? 4 : wire::avail_ring_bytes(s.size, true), s.scattered);
        space.add(v.used, s.packed() ? 4 : wire::used_ring_bytes(s.size, true), s.scattered);
        space.add(Rig::kDataAt, data_pages * kPage, s.scattered);
        space.add(Rig::kTableAt, table_pages * kPage, s.scattered);
        if (s.packed())
            driver = std::make_unique<PackedDriver>(space, v, s.features);
        else
            driver = std::make_unique<ReferenceDriver>(space, v, uint16_t(v.base), s.features);
        chain.reserve(s.size);
        is_bound = queue.bind(space, v, s.features);
        if (is_bound) queue.start_at_used_or(v.base);
    }

    Shape shape;
    PageSpace space;
    std::unique_ptr<Driver> driver;
    Queue<PageSpace> queue;
    Chain chain;
    bool is_bound = false;
};

}  // namespace viommu::virtq::test
