// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <algorithm>

#include "fake_queue.hh"

namespace viommu::guest {
namespace {

using test::FakeChain;
using test::FakeQueue;

constexpr uint64_t kRingBus = 0x7000'0000, kTablesBus = 0x8000'0000;

/// A queue in scattered pages whose bus addresses have nothing to do with them.
struct Bench {
    explicit Bench(uint16_t size, uint32_t align = DriverQueue::kDefaultAlign)
        : memory(std::move(*Memory::create(8 << 20))),
          kick(std::move(*make_eventfd())),
          ring(block(DriverQueue::ring_bytes(size, align), kRingBus)),
          queue(ring, size, kick.get(), align),
          device(
              size, queue.desc().value, queue.avail().value, queue.used().value,
              [this](uint64_t at) { return look_up(ring, at); },
              [this](uint64_t at) { return look_up(tables, at); }) {}

    DmaBlock block(uint64_t bytes, uint64_t bus) {
        auto made = *allocate_block(*memory, bytes, Placement::kScattered);
        made.bus = {bus};
        return made;
    }
    static std::byte* look_up(const DmaBlock& where, uint64_t at) {
        EXPECT_LT(at - where.bus.value, where.bytes);
        return where.at(at - where.bus.value);
    }
    bool add_one(uint64_t token) {
        const Segment out{BusAddress{token}, uint32_t(token & 0xffff)};
        return queue.add(std::span(&out, 1), {}, token);
    }

    std::unique_ptr<Memory> memory;
    Fd kick;
    DmaBlock ring, tables;
    DriverQueue queue;
    FakeQueue device;
};

TEST(DriverQueue, layout_is_that_of_vring_init) {
    Bench b(256, 4096);
    EXPECT_EQ(b.queue.avail() - b.queue.desc(), 4096u);
    EXPECT_EQ(b.queue.used() - b.queue.desc(), 8192u);
    EXPECT_EQ(DriverQueue::ring_bytes(256, 4096), 8192u + 2 * 3 + 8 * 256);
    Bench small(4);
    EXPECT_EQ(small.queue.used() - small.queue.desc(), 128u) << "64 + 4 + 8 + 2, rounded up to 64";
}

TEST(DriverQueue, nothing_is_seen_before_publish) {
    Bench b(4);
    ASSERT_TRUE(b.add_one(1));
    EXPECT_FALSE(b.device.take());
    b.queue.publish();
    EXPECT_TRUE(b.device.take());
}

TEST(DriverQueue, chain_arrives_segment_by_segment) {
    Bench b(8);
    const Segment out[] = {{BusAddress{0x10}, 1}, {BusAddress{0x20}, 2}};
    const Segment in[] = {{BusAddress{0x30}, 3}, {BusAddress{0xffff'ffff'ffff'0000}, 4}};
    ASSERT_TRUE(b.queue.add(out, in, 42));
    EXPECT_EQ(b.queue.free_descriptors(), 4);
    b.queue.publish();
    const auto chain = b.device.take();
    ASSERT_TRUE(chain);
    ASSERT_EQ(chain->readable.size(), 2u);
    ASSERT_EQ(chain->writable.size(), 2u);
    EXPECT_EQ(chain->readable[1].at, BusAddress{0x20});
    EXPECT_EQ(chain->writable[1].at, (BusAddress{0xffff'ffff'ffff'0000}));
    EXPECT_EQ(chain->writable[1].bytes, 4u);
    b.device.put(chain->head, 7);
    const auto done = b.queue.pop();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->token, 42u);
    EXPECT_EQ(done->bytes, 7u);
    EXPECT_EQ(b.queue.free_descriptors(), 8);
    EXPECT_FALSE(b.queue.pop());
}

TEST(DriverQueue, chain_without_room_or_segments_is_refused_whole) {
    Bench b(4);
    const Segment three[3] = {};
    ASSERT_TRUE(b.queue.add(three, {}, 1));
    EXPECT_FALSE(b.queue.add(three, {}, 2));
    EXPECT_FALSE(b.queue.add({}, {}, 3));
    EXPECT_EQ(b.queue.free_descriptors(), 1);
    EXPECT_TRUE(b.add_one(4));
    EXPECT_FALSE(b.add_one(5));
}

TEST(DriverQueue, indirect_chain_uses_one_descriptor_in_tables_that_cross_pages) {
    Bench b(64);
    constexpr uint32_t kMax = 96;  // 1536 bytes: some tables lie in two pages
    b.tables = b.block(DriverQueue::indirect_bytes(64, kMax), kTablesBus);
    b.queue.use_indirect(b.tables, kMax);
    std::vector<Segment> out(50), in(46), too_many(97);
    for (uint32_t i = 0; i < out.size(); ++i) out[i] = {BusAddress{i}, i};
    for (uint32_t i = 0; i < in.size(); ++i) in[i] = {BusAddress{1000 + i}, i};
    EXPECT_FALSE(b.queue.add_indirect(too_many, {}, 0));
    for (unsigned i = 0; i < 64; ++i) ASSERT_TRUE(b.queue.add_indirect(out, in, i));
    EXPECT_FALSE(b.queue.add_indirect(out, in, 64));
    b.queue.publish();
    for (unsigned i = 0; i < 64; ++i) {
        const auto chain = b.device.take();
        ASSERT_TRUE(chain && chain->indirect);
        ASSERT_EQ(chain->readable.size(), 50u);
        ASSERT_EQ(chain->writable.size(), 46u);
        EXPECT_EQ(chain->readable[49].bytes, 49u);
        EXPECT_EQ(chain->writable[45].at, BusAddress{1045});
        b.device.put(chain->head, 0);
        EXPECT_EQ(b.queue.pop()->token, i);
    }
}

/// A queue of every size goes round more than 65536 entries with chains of all lengths, returned
/// out of order.
class EverySize : public testing::TestWithParam<uint16_t> {};

TEST_P(EverySize, indices_wrap_and_chains_come_back_in_any_order) {
    const uint16_t size = GetParam();
    Bench b(size);
    const uint64_t total = 65536 + 3 * uint64_t{size};
    std::vector<FakeChain> held;
    std::vector<bool> returned(total);
    uint64_t added = 0, done = 0, random = 1;
    const auto roll = [&] { return random = random * 6364136223846793005u + 1, random >> 33; };
    while (done < total) {
        while (added < total) {
            std::vector<Segment> segments(1 + roll() % std::min<uint16_t>(size, 5));
            for (auto& s : segments) s = {BusAddress{added}, uint32_t(segments.size())};
            const size_t readable = roll() % (segments.size() + 1);
            if (!b.queue.add(std::span(segments).first(readable),
                             std::span(segments).subspan(readable), added))
                break;
            ++added;
        }
        b.queue.publish();
        while (auto chain = b.device.take()) held.push_back(*chain);
        ASSERT_FALSE(held.empty());
        for (uint64_t n = 1 + roll() % held.size(); n > 0; --n) {
            const size_t which = roll() % held.size();
            const auto& chain = held[which];
            const auto& all = chain.readable.empty() ? chain.writable : chain.readable;
            ASSERT_EQ(all[0].bytes, chain.readable.size() + chain.writable.size());
            b.device.put(chain.head, uint32_t(all[0].at.value));
            std::swap(held[which], held.back());
            held.pop_back();
        }
        while (const auto c = b.queue.pop()) {
            ASSERT_EQ(c->token, c->bytes) << "the device says which chain this was";
            ASSERT_FALSE(returned[c->token]);
            returned[c->token] = true;
            ++done;
        }
        ASSERT_EQ(b.queue.broken(), "");
    }
    EXPECT_EQ(b.queue.free_descriptors(), size);
    EXPECT_EQ(b.device.next(), uint16_t(total)) << "avail.idx has wrapped";
}

INSTANTIATE_TEST_SUITE_P(Sizes, EverySize, testing::Values(1, 2, 4, 8, 64, 256, 1024, 32768));

TEST(DriverQueue, kick_signals_unless_the_device_asks_not_to) {
    Bench b(4);
    ASSERT_TRUE(b.add_one(1));
    EXPECT_TRUE(b.queue.kick());
    EXPECT_TRUE(drain_eventfd(b.kick.get()));
    b.device.set_used_flags(wire::VIRTQ_USED_F_NO_NOTIFY);
    ASSERT_TRUE(b.add_one(2));
    EXPECT_FALSE(b.queue.kick());
    EXPECT_FALSE(drain_eventfd(b.kick.get()));
    EXPECT_TRUE(b.device.take() && b.device.take()) << "published all the same";
}

TEST(DriverQueue, interrupts_are_asked_for_by_flag) {
    Bench b(4);
    EXPECT_EQ(b.device.avail_flags(), 0);
    b.queue.want_interrupts(false);
    EXPECT_EQ(b.device.avail_flags(), wire::VIRTQ_AVAIL_F_NO_INTERRUPT);
    b.queue.want_interrupts(true);
    EXPECT_EQ(b.device.avail_flags(), 0);
}

TEST(DriverQueue, device_that_returns_what_it_was_not_given_breaks_the_queue) {
    for (const uint32_t id : {1u, 4u, 0xffff'ffffu}) {
        Bench b(4);
        ASSERT_TRUE(b.add_one(1));
        b.queue.publish();
        b.device.put_element(id, 0);
        b.device.publish();
        EXPECT_FALSE(b.queue.pop());
        EXPECT_NE(b.queue.broken(), "");
    }
}

TEST(DriverQueue, device_that_returns_more_than_there_is_breaks_the_queue) {
    Bench b(4);
    ASSERT_TRUE(b.add_one(1));
    b.queue.publish();
    b.device.jump_used_index(2);
    EXPECT_FALSE(b.queue.pop());
    EXPECT_NE(b.queue.broken(), "");
}

}  // namespace
}  // namespace viommu::guest
