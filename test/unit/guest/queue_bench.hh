// SPDX-License-Identifier: BSD-3-Clause
/// A DriverQueue of any format and the fake device at its other end, in scattered pages whose bus
/// addresses have nothing to do with them.
#pragma once

#include "fake_queue.hh"

namespace viommu::guest::test {

inline constexpr uint64_t kRingBus = 0x7000'0000, kTablesBus = 0x8000'0000;

struct Bench {
    explicit Bench(uint16_t size, RingFormat format = {},
                   uint32_t align = DriverQueue::kDefaultAlign)
        : memory(std::move(*Memory::create(16 << 20))),
          kick(std::move(*make_eventfd())),
          ring(block(DriverQueue::ring_bytes(size, format, align), kRingBus)),
          queue(ring, size, kick.get(), format, align),
          device(
              size, queue.desc().value, queue.avail().value, queue.used().value,
              [this](uint64_t at) { return look_up(ring, at); },
              [this](uint64_t at) { return look_up(tables, at); }, format.packed ? 0x8000 : 0,
              format) {}

    DmaBlock block(uint64_t bytes, uint64_t bus) {
        auto made = *allocate_block(*memory, bytes, Placement::kScattered);
        made.bus = {bus};
        return made;
    }
    static std::byte* look_up(const DmaBlock& where, uint64_t at) {
        EXPECT_LT(at - where.bus.value, where.bytes);
        return where.at(at - where.bus.value);
    }
    void use_indirect(uint32_t max_segments) {
        tables = block(DriverQueue::indirect_bytes(queue.size(), max_segments), kTablesBus);
        queue.use_indirect(tables, max_segments);
    }
    /// A readable segment that says which chain it is.
    bool add_one(uint64_t token) {
        const Segment out{BusAddress{token}, uint32_t(token & 0xffff)};
        return queue.add(std::span(&out, 1), {}, token);
    }
    bool add_writable(uint64_t token, uint32_t bytes) {
        const Segment in{BusAddress{token}, bytes};
        return queue.add({}, std::span(&in, 1), token);
    }

    std::unique_ptr<Memory> memory;
    Fd kick;
    DmaBlock ring, tables;
    DriverQueue queue;
    FakeQueue device;
};

/// For names of tests: "packed_event_idx".
inline std::string name_of(RingFormat f) {
    return std::string(f.packed ? "packed" : "split") + (f.event_idx ? "_event_idx" : "") +
           (f.in_order ? "_in_order" : "");
}

inline constexpr RingFormat kAllFormats[] = {
    {false, false, false}, {false, true, false}, {false, false, true}, {false, true, true},
    {true, false, false},  {true, true, false},  {true, false, true},  {true, true, true}};

}  // namespace viommu::guest::test
