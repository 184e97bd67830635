// SPDX-License-Identifier: BSD-3-Clause
/// What holds of a queue in every format.
#include <gtest/gtest.h>

#include "queue_bench.hh"

namespace viommu::guest {
namespace {

using test::Bench;
using test::FakeChain;

class DriverQueueTest : public testing::TestWithParam<RingFormat> {
  protected:
    RingFormat format = GetParam();
};

/// Formats in which a device can say "never" and "always".
class QueueWithFlags : public DriverQueueTest {};
class QueueWithEventIdx : public DriverQueueTest {};

TEST_P(DriverQueueTest, nothing_is_seen_before_publish) {
    Bench b(4, format);
    ASSERT_TRUE(b.add_one(1));
    ASSERT_TRUE(b.add_one(2));
    EXPECT_FALSE(b.device.take());
    b.queue.publish();
    EXPECT_TRUE(b.device.take());
    EXPECT_TRUE(b.device.take());
    EXPECT_FALSE(b.device.take());
}

TEST_P(DriverQueueTest, chain_arrives_segment_by_segment) {
    Bench b(8, format);
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
    EXPECT_FALSE(b.queue.pop());
    b.device.put(chain->head, 7);
    const auto done = b.queue.pop();
    ASSERT_TRUE(done) << b.queue.broken();
    EXPECT_EQ(done->token, 42u);
    EXPECT_EQ(done->bytes, 7u);
    EXPECT_EQ(b.queue.free_descriptors(), 8);
    EXPECT_FALSE(b.queue.pop());
}

TEST_P(DriverQueueTest, chain_without_room_or_segments_is_refused_whole) {
    Bench b(4, format);
    const Segment three[3] = {};
    ASSERT_TRUE(b.queue.add(three, {}, 1));
    EXPECT_FALSE(b.queue.add(three, {}, 2));
    EXPECT_FALSE(b.queue.add({}, {}, 3));
    EXPECT_EQ(b.queue.free_descriptors(), 1);
    EXPECT_TRUE(b.add_one(4));
    EXPECT_FALSE(b.add_one(5));
}

TEST_P(DriverQueueTest, indirect_chain_uses_one_descriptor_in_tables_that_cross_pages) {
    Bench b(64, format);
    b.use_indirect(96);  // 1536 bytes: some tables lie in two pages
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

TEST_P(DriverQueueTest, base_is_where_the_device_goes_on) {
    Bench b(4, format);
    for (uint64_t i = 0; i < 11; ++i) {
        ASSERT_EQ(b.queue.base() & 0xffff, b.device.next()) << i;
        ASSERT_EQ(b.queue.base() >> 16, format.packed ? b.device.next() : 0);
        ASSERT_TRUE(b.add_one(i));
        b.queue.publish();
        b.device.put(b.device.take()->head, 0);
        ASSERT_TRUE(b.queue.pop());
    }
}

TEST_P(QueueWithFlags, signal_is_sent_unless_the_device_asks_not_to) {
    Bench b(4, format);
    ASSERT_TRUE(b.add_one(1));
    EXPECT_TRUE(b.queue.kick());
    EXPECT_TRUE(drain_eventfd(b.kick.get()));
    b.device.want_kicks(false);
    ASSERT_TRUE(b.add_one(2));
    EXPECT_FALSE(b.queue.kick());
    EXPECT_FALSE(drain_eventfd(b.kick.get()));
    EXPECT_TRUE(b.device.take() && b.device.take()) << "published all the same";
}

/// The device asks for a signal at every distance, from every position: the driver sends one for
/// exactly the publication that passes it.
TEST_P(QueueWithEventIdx, signal_is_sent_for_the_entry_that_the_device_waits_for) {
    constexpr uint16_t kSize = 8;
    for (uint16_t start = 0; start < 2 * kSize; ++start)
        for (uint16_t after = 0; after < kSize; ++after)
            for (uint16_t batch = 1; batch <= kSize; ++batch) {
                Bench b(kSize, format);
                for (uint16_t i = 0; i < start; ++i) {
                    ASSERT_TRUE(b.add_one(i));
                    b.queue.kick();
                    b.device.put(b.device.take()->head, 0);
                    ASSERT_TRUE(b.queue.pop());
                }
                b.device.want_kicks(true, after);
                for (uint16_t sent = 0; sent + batch <= kSize; sent = uint16_t(sent + batch)) {
                    for (uint16_t i = 0; i < batch; ++i) ASSERT_TRUE(b.add_one(i));
                    ASSERT_EQ(b.queue.kick(), sent <= after && after < sent + batch)
                        << "from " << start << ", " << sent << " to " << sent + batch
                        << " published, asked for " << after;
                }
            }
}

/// The same the other way round; the device walks over what it has used.
TEST_P(DriverQueueTest, interrupt_is_asked_for_at_the_entry_wanted) {
    constexpr uint16_t kSize = 8;
    for (uint16_t start = 0; start < 2 * kSize; ++start)
        for (uint16_t after = 0; after < kSize; ++after) {
            Bench b(kSize, format);
            b.queue.want_interrupts(false);
            for (uint16_t i = 0; i < start; ++i) {
                ASSERT_TRUE(b.add_one(i));
                b.queue.publish();
                b.device.put(b.device.take()->head, 0);
                ASSERT_FALSE(b.device.call_wanted());
                ASSERT_TRUE(b.queue.pop());
            }
            ASSERT_FALSE(b.queue.want_interrupts(true, after));
            for (uint16_t i = 0; i < kSize; ++i) ASSERT_TRUE(b.add_one(i));
            b.queue.publish();
            for (uint16_t i = 0; i < kSize; ++i) {
                b.device.put(b.device.take()->head, 0);
                ASSERT_EQ(b.device.call_wanted(), !format.event_idx || i == after)
                    << "from " << start << ", wanted after " << after << ", used " << i;
                ASSERT_EQ(b.queue.want_interrupts(true, after), i >= after);
            }
        }
}

TEST_P(DriverQueueTest, device_that_returns_what_it_was_not_given_breaks_the_queue) {
    for (const uint32_t id : {1u, 4u, 0xffffu}) {
        Bench b(4, format);
        ASSERT_TRUE(b.add_one(1));
        b.queue.publish();
        b.device.put(id, 0);
        EXPECT_FALSE(b.queue.pop());
        EXPECT_NE(b.queue.broken(), "");
    }
}

TEST_P(DriverQueueTest, device_that_returns_a_chain_twice_breaks_the_queue) {
    Bench b(4, format);
    ASSERT_TRUE(b.add_one(1));
    ASSERT_TRUE(b.add_one(2));
    b.queue.publish();
    const auto chain = b.device.take();
    b.device.put(chain->head, 0);
    ASSERT_TRUE(b.queue.pop());
    b.device.put(chain->head, 0);
    EXPECT_FALSE(b.queue.pop());
    EXPECT_NE(b.queue.broken(), "");
}

TEST_P(DriverQueueTest, device_that_claims_to_have_written_more_than_there_is_breaks_the_queue) {
    for (const uint32_t room : {0u, 5u}) {
        Bench b(4, format);
        ASSERT_TRUE(room == 0 ? b.add_one(1) : b.add_writable(1, room));
        b.queue.publish();
        b.device.put(b.device.take()->head, room + 1);
        EXPECT_FALSE(b.queue.pop());
        EXPECT_NE(b.queue.broken(), "");
    }
}

INSTANTIATE_TEST_SUITE_P(Formats, DriverQueueTest, testing::ValuesIn(test::kAllFormats),
                         [](const auto& info) { return test::name_of(info.param); });

template <class Keep>
std::vector<RingFormat> formats(Keep keep) {
    std::vector<RingFormat> kept;
    std::copy_if(std::begin(test::kAllFormats), std::end(test::kAllFormats),
                 std::back_inserter(kept), keep);
    return kept;
}

INSTANTIATE_TEST_SUITE_P(
    Formats, QueueWithFlags,
    testing::ValuesIn(formats([](RingFormat f) { return f.packed || !f.event_idx; })),
    [](const auto& info) { return test::name_of(info.param); });
INSTANTIATE_TEST_SUITE_P(Formats, QueueWithEventIdx,
                         testing::ValuesIn(formats([](RingFormat f) { return f.event_idx; })),
                         [](const auto& info) { return test::name_of(info.param); });

// ---- of split queues

TEST(SplitQueue, layout_is_that_of_vring_init) {
    Bench b(256, {}, 4096);
    EXPECT_EQ(b.queue.avail() - b.queue.desc(), 4096u);
    EXPECT_EQ(b.queue.used() - b.queue.desc(), 8192u);
    EXPECT_EQ(DriverQueue::ring_bytes(256, {}, 4096), 8192u + 2 * 3 + 8 * 256);
    Bench small(4);
    EXPECT_EQ(small.queue.used() - small.queue.desc(), 128u) << "64 + 4 + 8 + 2, rounded up to 64";
}

TEST(SplitQueue, interrupts_are_asked_for_by_flag_only_without_event_idx) {
    Bench b(4), with(4, {.event_idx = true});
    EXPECT_EQ(b.device.avail_flags(), 0);
    b.queue.want_interrupts(false);
    with.queue.want_interrupts(false);
    EXPECT_EQ(b.device.avail_flags(), wire::VIRTQ_AVAIL_F_NO_INTERRUPT);
    EXPECT_EQ(with.device.avail_flags(), 0) << "2.7.7.1: must be 0";
    b.queue.want_interrupts(true);
    EXPECT_EQ(b.device.avail_flags(), 0);
}

TEST(SplitQueue, in_order_takes_descriptors_round_and_round) {
    Bench b(4, {.in_order = true});
    const Segment two[2] = {};
    for (uint16_t i = 0; i < 10; ++i) {
        ASSERT_TRUE(b.queue.add(two, {}, i));
        b.queue.publish();
        const auto chain = b.device.take();
        EXPECT_EQ(chain->head, 2 * i % 4);
        b.device.put(chain->head, 0);
        ASSERT_TRUE(b.queue.pop());
    }
}

TEST(SplitQueue, device_that_returns_more_than_there_is_breaks_the_queue) {
    Bench b(4);
    ASSERT_TRUE(b.add_one(1));
    b.queue.publish();
    b.device.jump_used_index(2);
    EXPECT_FALSE(b.queue.pop());
    EXPECT_NE(b.queue.broken(), "");
}

TEST(SplitQueue, in_order_element_beyond_the_index_breaks_the_queue) {
    Bench b(4, {.in_order = true});
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(b.add_one(1));
    b.queue.publish();
    b.device.take(), b.device.take();
    b.device.put(b.device.take()->head, 0);  // the third, as if it were one
    EXPECT_FALSE(b.queue.pop());
    EXPECT_NE(b.queue.broken(), "");
}

// ---- of packed queues

TEST(PackedQueue, event_suppression_that_means_nothing_breaks_the_queue) {
    struct Wish {
        uint16_t position, flags;
        bool event_idx;
    };
    for (const auto& w : {Wish{0, wire::RING_EVENT_FLAGS_DESC, false}, Wish{0, 3, true},
                          Wish{5, wire::RING_EVENT_FLAGS_DESC, true}}) {
        Bench b(5, {.packed = true, .event_idx = w.event_idx});
        b.device.set_event_suppression(w.position, w.flags);
        ASSERT_TRUE(b.add_one(1));
        EXPECT_TRUE(b.queue.kick()) << "to be safe";
        EXPECT_NE(b.queue.broken(), "");
    }
}

TEST(PackedQueue, written_bytes_count_only_where_the_device_says_that_it_wrote) {
    Bench b(4, {.packed = true});
    ASSERT_TRUE(b.add_writable(1, 10));
    b.queue.publish();
    b.device.put(b.device.take()->head, 0);  // writes nonsense into `len`, and no WRITE flag
    const auto done = b.queue.pop();
    ASSERT_TRUE(done) << b.queue.broken();
    EXPECT_EQ(done->bytes, 0u);
}

TEST(PackedQueue, parts_are_aligned_and_apart) {
    for (const uint16_t size : {1, 3, 7, 256, 32768}) {
        Bench b(size, {.packed = true});
        EXPECT_EQ(b.queue.avail().value % 4, 0u);
        EXPECT_GE(b.queue.avail() - b.queue.desc(), 16u * size);
        EXPECT_GE(b.queue.used() - b.queue.avail(), 4u);
        EXPECT_LE(b.queue.used() + 4 - b.queue.desc(), b.ring.bytes);
    }
}

}  // namespace
}  // namespace viommu::guest
