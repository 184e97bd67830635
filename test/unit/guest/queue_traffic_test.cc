// SPDX-License-Identifier: BSD-3-Clause
/// Queues of every format and many sizes go round many times, with chains of all lengths.
#include <gtest/gtest.h>

#include "queue_bench.hh"

namespace viommu::guest {
namespace {

using test::Bench;
using test::FakeChain;

struct Shape {
    uint16_t size;
    RingFormat format;
};

class QueueTraffic : public testing::TestWithParam<Shape> {
  protected:
    uint64_t roll() { return random = random * 6364136223846793005u + 1, random >> 33; }

    /// Chains of up to 5 segments while there is room, some of them in tables; the first segment's
    /// address is the token.
    void fill(Bench& b, uint64_t total) {
        while (added < total) {
            std::vector<Segment> segments(1 + roll() % 5);
            for (auto& s : segments) s = {BusAddress{added}, uint32_t(segments.size())};
            const size_t cut = roll() % (segments.size() + 1);
            const auto out = std::span(segments).first(cut), in = std::span(segments).subspan(cut);
            const bool ok = roll() % 3 == 0 ? b.queue.add_indirect(out, in, added)
                                            : b.queue.add(out, in, added);
            if (!ok && (segments.size() == 1 || b.queue.in_flight() != 0)) break;
            added += ok;
        }
    }
    static uint32_t claim(const FakeChain& c) {
        return uint32_t(c.writable_bytes() == 0 ? 0 : 1 + first(c).at.value % c.writable_bytes());
    }
    static const Segment& first(const FakeChain& c) {
        return c.readable.empty() ? c.writable[0] : c.readable[0];
    }
    /// Return a random part of `held`, in any order or (IN_ORDER) in batches with one element each.
    void give_back(Bench& b) {
        const uint64_t n = 1 + roll() % held.size();
        if (b.device.format().in_order) {
            const auto batch = std::span(held).first(n);
            for (const auto& c : batch)
                expected[first(c).at.value] = uint32_t(c.writable_bytes());
            expected[first(batch.back()).at.value] = claim(batch.back());
            b.device.put_batch(batch, claim(batch.back()));
            held.erase(held.begin(), held.begin() + ptrdiff_t(n));
        } else {
            for (uint64_t i = 0; i < n; ++i) {
                std::swap(held[roll() % held.size()], held.back());
                const auto& c = held.back();
                expected[first(c).at.value] = claim(c);
                b.device.put_element(c.head, claim(c));
                held.pop_back();
            }
        }
        b.device.publish();
    }

    uint64_t random = 1, added = 0, done = 0;
    std::vector<FakeChain> held;
    std::map<uint64_t, uint32_t> expected;  // by token: bytes
};

TEST_P(QueueTraffic, every_chain_comes_back_once_with_what_was_written) {
    const auto [size, format] = GetParam();
    Bench b(size, format);
    b.use_indirect(5);
    const uint64_t total = 3000 + 2 * uint64_t{size};
    uint64_t oldest = 0;
    while (done < total) {
        fill(b, total);
        b.queue.publish();
        while (auto chain = b.device.take()) {
            const auto& c = *chain;
            ASSERT_EQ(first(c).bytes, c.readable.size() + c.writable.size());
            held.push_back(c);
        }
        ASSERT_FALSE(held.empty());
        give_back(b);
        while (const auto c = b.queue.pop()) {
            const auto was = expected.find(c->token);
            ASSERT_NE(was, expected.end()) << c->token << " came back twice, or too early";
            ASSERT_EQ(c->bytes, was->second);
            if (format.in_order) {
                ASSERT_EQ(c->token, oldest++);
            }
            expected.erase(was);
            ++done;
        }
        ASSERT_EQ(b.queue.broken(), "");
        ASSERT_TRUE(expected.empty());
    }
    EXPECT_EQ(b.queue.free_descriptors(), size);
    EXPECT_EQ(b.queue.in_flight(), 0);
}

std::vector<Shape> shapes() {
    std::vector<Shape> all;
    for (const auto f : test::kAllFormats)
        for (const uint16_t size : {1, 2, 3, 5, 8, 64, 100, 1024, 32768})
            if (DriverQueue::is_size(size, f)) all.push_back({size, f});
    return all;
}

INSTANTIATE_TEST_SUITE_P(Shapes, QueueTraffic, testing::ValuesIn(shapes()), [](const auto& info) {
    return test::name_of(info.param.format) + "_" + std::to_string(info.param.size);
});

TEST(SplitQueueTraffic, indices_wrap_at_65536) {
    Bench b(4, {.event_idx = true});
    for (uint64_t i = 0; i < 65536 + 10; ++i) {
        b.device.want_kicks(true, 0);
        ASSERT_TRUE(b.add_one(i));
        ASSERT_TRUE(b.queue.kick()) << i;
        ASSERT_FALSE(b.queue.want_interrupts(true));
        b.device.put(b.device.take()->head, 0);
        ASSERT_TRUE(b.device.call_wanted()) << i;
        ASSERT_EQ(b.queue.pop()->token, i);
    }
    EXPECT_EQ(b.device.next(), 10u);
}

}  // namespace
}  // namespace viommu::guest
