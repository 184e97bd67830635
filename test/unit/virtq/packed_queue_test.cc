// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "any_rig.hh"

namespace viommu::virtq::test {
namespace {

constexpr uint64_t kData = Rig::kDataAt, kTable = Rig::kTableAt;
using Packed = PackedQueue<PageSpace>;

/// A packed queue, and its driver.
struct PackedRig : AnyRig {
    explicit PackedRig(uint32_t size, uint32_t base = Packed::kFreshBase, uint64_t features = 0)
        : AnyRig({.size = size, .features = kPacked | features, .base = base}),
          guest(static_cast<PackedDriver&>(*driver)) {}

    /// One chain of `count` buffers of one byte, published.
    uint16_t offer(uint32_t count = 1) {
        const auto id = driver->chain(std::vector<Desc>(count, Desc{kData, 1, kWrite, 0}));
        driver->publish();
        return id.value();
    }
    Taken take() {
        EXPECT_EQ(queue.pop(chain), Pop::kChain);
        return chain.taken();
    }
    PackedDriver& guest;
};

TEST(PackedQueueBind, ring_that_is_not_acceptable_is_refused) {
    PackedRig rig(7);
    const Vring good = AnyRig::vring(rig.shape);
    Packed q;
    const auto bound = [&](auto change) {
        Vring v = good;
        change(v);
        const bool result = q.bind(rig.space, v);
        EXPECT_EQ(q.bound(), result);
        return result;
    };
    EXPECT_TRUE(bound([](Vring&) {}));
    EXPECT_TRUE(bound([](Vring& v) { v.size = 100; }));
    EXPECT_FALSE(bound([](Vring& v) { v.size = 0; }));
    EXPECT_FALSE(bound([](Vring& v) { v.size = 32769; }));
    EXPECT_FALSE(bound([](Vring& v) { v.desc += 8; }));
    EXPECT_FALSE(bound([](Vring& v) { v.avail += 2; }));
    EXPECT_FALSE(bound([](Vring& v) { v.used += 2; }));
    EXPECT_FALSE(bound([](Vring& v) { v.desc += 16 * kPage; }));
    EXPECT_FALSE(q.bind(rig.space, good, 0)) << "a split ring";
    SplitQueue<PageSpace> split;
    EXPECT_FALSE(split.bind(rig.space, good, kPacked));
    EXPECT_FALSE(split.bind(rig.space, good, 0)) << "7 is no power of two";
}

TEST(PackedQueueBind, each_part_needs_the_rights_that_it_is_used_with) {
    PackedRig rig(7);
    const Vring v = AnyRig::vring(rig.shape);
    Packed q;
    const auto with = [&](uint64_t part, Access rights) {
        rig.space.map(v.desc, 0, part == v.desc ? rights : Access::kReadWrite);
        rig.space.map(v.avail, 1, part == v.avail ? rights : Access::kReadWrite);
        rig.space.map(v.used, 2, part == v.used ? rights : Access::kReadWrite);
        return q.bind(rig.space, v);
    };
    EXPECT_FALSE(with(v.desc, Access::kRead));
    EXPECT_FALSE(with(v.desc, Access::kWrite));
    EXPECT_TRUE(with(v.avail, Access::kRead));
    EXPECT_FALSE(with(v.avail, Access::kWrite));
    EXPECT_TRUE(with(v.used, Access::kWrite));
    EXPECT_FALSE(with(v.used, Access::kRead));
}

TEST(PackedQueueStart, base_is_that_of_vhost_user) {
    PackedRig rig(5);
    EXPECT_EQ(rig.queue.next_base(), 0x80008000u);
    for (unsigned i = 0; i < 12; ++i) {
        rig.offer();
        const Taken t = rig.take();
        const uint32_t before = i % 5 | (i / 5 % 2 != 0 ? 0 : 0x8000);
        const uint32_t after = (i + 1) % 5 | ((i + 1) / 5 % 2 != 0 ? 0 : 0x8000);
        EXPECT_EQ(rig.queue.next_base(), after | before << 16);
        rig.queue.push(t, 0);
        EXPECT_EQ(rig.queue.next_base(), after | after << 16);
        rig.queue.complete();
        rig.queue.start_at(i % 2 != 0 ? after : after | after << 16);
        EXPECT_EQ(rig.queue.next_base(), after | after << 16);
        EXPECT_TRUE(rig.driver->pop());
    }
}

TEST(PackedQueueStart, place_outside_the_ring_breaks_it) {
    PackedRig rig(5);
    rig.offer();
    rig.queue.start_at(0x80058005);
    EXPECT_TRUE(rig.queue.broken());
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kBroken);
    EXPECT_EQ(rig.queue.available(), 0u);
    EXPECT_EQ(rig.queue.stats().broken.was(), 1u);
    rig.queue.start_at(Packed::kFreshBase);
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
}

TEST(PackedQueuePop, chain_that_fills_the_ring_is_taken_lap_after_lap) {
    for (const uint32_t size : {1u, 2u, 3u, 7u, 256u, 32768u}) {
        for (const uint32_t start : {0u, size / 2, size - 1}) {
            PackedRig rig(size, (start | 0x8000) * 0x10001);
            for (unsigned lap = 0; lap < 5; ++lap) {
                const uint16_t id = rig.offer(size);
                EXPECT_EQ(rig.queue.available(), 1u);
                const Taken t = rig.take();
                ASSERT_EQ(t.id, id);
                ASSERT_EQ(t.slots, size);
                ASSERT_EQ(rig.chain.writable_bytes(), size);
                ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kEmpty);
                rig.queue.push(t, 1 + lap);
                ASSERT_TRUE(rig.queue.flush());
                const auto used = rig.driver->pop();
                ASSERT_TRUE(used);
                ASSERT_EQ(used->id, id);
                ASSERT_EQ(used->len, 1 + lap);
            }
        }
    }
}

TEST(PackedQueuePush, only_the_first_descriptor_of_a_chain_is_written) {
    PackedRig rig(8);
    const uint16_t first = rig.offer(3), second = rig.offer(2);
    std::vector<uint64_t> before;
    for (uint32_t i = 0; i < 8; ++i) before.push_back(rig.guest.word(i));
    const Taken a = rig.take(), b = rig.take();
    rig.queue.push(a, 7);
    rig.queue.push(b, 0);
    EXPECT_EQ(rig.guest.word(0), before[0]) << "the driver waits for this one: it is written last";
    EXPECT_FALSE(rig.driver->pop());
    EXPECT_TRUE(rig.queue.flush());
    EXPECT_FALSE(rig.queue.flush());
    EXPECT_EQ(rig.guest.word(0), uint64_t{7} | uint64_t{first} << 32 | uint64_t{0x8082} << 48);
    EXPECT_EQ(rig.guest.word(3), uint64_t{second} << 32 | uint64_t{0x8080} << 48);
    for (const uint32_t i : {1u, 2u, 4u, 5u, 6u, 7u}) EXPECT_EQ(rig.guest.word(i), before[i]) << i;
}

TEST(PackedQueuePush, chains_may_be_returned_in_any_order) {
    PackedRig rig(6);
    for (unsigned round = 0; round < 9; ++round) {
        const uint16_t a = rig.offer(1), b = rig.offer(3), c = rig.offer(2);
        const Taken ta = rig.take(), tb = rig.take(), tc = rig.take();
        rig.queue.push(tc, 3);
        rig.queue.push(ta, 1);
        rig.queue.push(tb, 2);
        rig.queue.complete();
        for (const auto& [id, len] : {std::pair{c, 3u}, std::pair{a, 1u}, std::pair{b, 2u}}) {
            const auto used = rig.driver->pop();
            ASSERT_TRUE(used);
            EXPECT_EQ(used->id, id);
            EXPECT_EQ(used->len, len);
        }
    }
}

TEST(PackedQueueUnpop, chains_put_back_are_taken_again_across_the_end_of_the_ring) {
    PackedRig rig(5, 0x80048004);
    const uint16_t a = rig.offer(2), b = rig.offer(3);
    const Taken ta = rig.take(), tb = rig.take();
    rig.queue.unpop(tb);
    rig.queue.unpop(ta);
    EXPECT_EQ(rig.queue.next_base(), 0x80048004u);
    EXPECT_EQ(rig.queue.available(), 2u);
    EXPECT_EQ(rig.take().id, a);
    EXPECT_EQ(rig.take().id, b);
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kEmpty);
}

// --- is it the same ring? ------------------------------------------------------------------------

TEST(PackedQueueMark, ring_that_goes_on_is_recognised_wherever_its_driver_is) {
    PackedRig rig(5);
    for (unsigned i = 0; i < 12; ++i) {
        rig.offer(2);
        rig.queue.push(rig.take(), 1);
        rig.queue.complete();
        const Mark mark = rig.queue.mark();
        const uint32_t base = rig.queue.next_base();
        EXPECT_TRUE(rig.queue.continues(mark, base));
        EXPECT_TRUE(rig.queue.continues(mark, base & 0xffff)) << "the lower half is enough";
        EXPECT_FALSE(rig.queue.continues(mark, base ^ 0x8000));
        EXPECT_TRUE(rig.driver->pop());
        if (i % 3 != 0) continue;
        // The driver has gone all the way round, and made the last used place available again.
        rig.offer(5);
        EXPECT_TRUE(rig.queue.continues(mark, base));
        const Taken t = rig.take();
        rig.queue.push(t, 1);
        rig.queue.complete();
        EXPECT_TRUE(rig.driver->pop());
    }
}

TEST(PackedQueueMark, new_ring_at_the_same_address_is_not_the_old_one) {
    PackedRig rig(4);
    for (int i = 0; i < 8; ++i) {  // back at descriptor 0 with wrap counter 1
        rig.offer();
        rig.queue.push(rig.take(), 1);
        rig.queue.complete();
        EXPECT_TRUE(rig.driver->pop());
    }
    const Mark mark = rig.queue.mark();
    EXPECT_EQ(rig.queue.next_base(), Packed::kFreshBase);
    EXPECT_TRUE(rig.queue.continues(mark, Packed::kFreshBase));
    for (uint32_t i = 0; i < 4; ++i) rig.space.put(Rig::kDescAt + 16 * i + 8, uint64_t{0});
    EXPECT_FALSE(rig.queue.continues(mark, Packed::kFreshBase));
}

// --- indirect tables -----------------------------------------------------------------------------

TEST(PackedQueueIndirect, table_is_the_whole_chain_and_only_write_means_something_in_it) {
    PackedRig rig(4);
    // The reference driver sets flags there that are to be ignored.
    rig.driver->indirect(kTable + 5, {{1, 10, 0, 0}, {2, 20, 0, 0}, {3, 30, kWrite, 0}});
    rig.driver->publish();
    EXPECT_EQ(rig.take().slots, 1);
    ASSERT_EQ(rig.chain.readable().size(), 2u);
    EXPECT_EQ(rig.chain.readable()[1].addr, 2u);
    EXPECT_EQ(rig.chain.writable_bytes(), 30u);
}

/// Whatever is wrong with a chain, it goes back whole and the queue goes on.
TEST(PackedQueueIndirect, chain_that_breaks_the_spec_is_malformed_and_goes_back) {
    struct Case {
        const char* what;
        std::vector<Desc> ring;
        Pop want = Pop::kMalformed;
    };
    const Case cases[] = {
        {"empty table", {{kTable, 0, kIndirect, 0}}},
        {"not a multiple of 16", {{kTable, 24, kIndirect, 0}}},
        {"more than 1024 and the queue", {{kTable, 1025 * 16, kIndirect, 0}}},
        {"table that wraps", {{~uint64_t{0} - 15, 32, kIndirect, 0}}},
        {"table that is nowhere", {{0x99990000, 16, kIndirect, 0}}, Pop::kFault},
        {"table first in a list", {{kTable, 16, kIndirect, 0}, {1, 1, 0, 0}}},
        {"table last in a list", {{1, 1, 0, 0}, {kTable, 16, kIndirect, 0}}},
        {"readable after writable", {{1, 1, kWrite, 0}, {1, 1, 0, 0}, {1, 1, 0, 0}}},
        {"buffer that wraps", {{~uint64_t{0}, 2, 0, 0}, {1, 1, 0, 0}}},
    };
    for (const Case& c : cases) {
        PackedRig rig(4);
        rig.space.put(kTable, Desc{1, 1, 0, 0});
        const auto id = rig.driver->chain(c.ring);
        rig.driver->publish();
        ASSERT_EQ(rig.queue.pop(rig.chain), c.want) << c.what;
        EXPECT_EQ(rig.chain.taken().id, id) << c.what;
        EXPECT_EQ(rig.chain.taken().slots, c.ring.size()) << c.what;
        rig.queue.push(rig.chain.taken(), 0);
        rig.queue.complete();
        EXPECT_TRUE(rig.driver->pop()) << c.what;
        const uint16_t next = rig.offer(4);
        EXPECT_EQ(rig.take().id, next) << c.what;
    }
}

// --- hostile -------------------------------------------------------------------------------------

TEST(HostilePacked, chain_that_does_not_end_breaks_the_ring) {
    for (const uint32_t size : {1u, 3u, 300u}) {
        PackedRig rig(size);
        PackedDriver::Place at{0, true};
        for (uint32_t i = 0; i < size; ++i, at.step(size))
            rig.guest.desc(at, {kData, 1, kNext, 0}, 1);
        EXPECT_EQ(rig.queue.available(), 1u) << "for pop() to find";
        EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kBroken);
        EXPECT_EQ(rig.chain.descriptors(), size);
        EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kBroken);
        EXPECT_EQ(rig.queue.available(), 0u);
        EXPECT_TRUE(rig.queue.arm()) << "nothing to stay awake for";
        EXPECT_EQ(rig.queue.stats().broken.was(), 1u);
        EXPECT_EQ(rig.queue.next_base(), Packed::kFreshBase);
    }
}

TEST(HostilePacked, chain_that_reaches_into_chains_not_returned_breaks_the_ring) {
    PackedRig rig(4);
    rig.offer(2);
    rig.take();
    rig.guest.desc({2, true}, {kData, 1, kNext, 0}, 1);
    rig.guest.desc({3, true}, {kData, 1, kNext, 0}, 1);
    rig.guest.desc({0, false}, {kData, 1, 0, 0}, 1);
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kBroken);
}

TEST(HostilePacked, more_than_the_ring_holds_breaks_it) {
    for (const bool returned : {false, true}) {
        PackedRig rig(4);
        rig.offer(4);
        const Taken t = rig.take();
        if (returned) rig.queue.push(t, 0);  // but the guest has not seen it
        rig.guest.desc({0, false}, {kData, 1, 0, 0}, 1);
        EXPECT_EQ(rig.queue.available(), 0u);
        EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kBroken) << returned;
    }
}

TEST(HostilePacked, ids_are_given_back_whatever_they_are) {
    for (const uint16_t id : {uint16_t{4}, uint16_t{0xffff}}) {
        PackedRig ring(4);
        ring.guest.desc({0, true}, {kData, 1, 0, 0}, id);
        EXPECT_EQ(ring.take().id, id);
        ring.queue.push(ring.chain.taken(), 0);
        ring.queue.complete();
        EXPECT_EQ(uint16_t(ring.guest.word(0) >> 32), id);
    }
}

/// Not instrumented: a guest that writes what the device reads is the point.
__attribute__((no_sanitize("thread"), no_sanitize("address"), noinline)) void scribble(
    volatile uint16_t* at, uint16_t value) {
    *at = value;
}

/// As HostileMemory does to a split ring: a second thread writes nonsense, mostly plausible, over
/// ring, event suppression and an indirect table. What the queue hands out keeps its promises.
TEST(HostilePacked, guest_changing_everything_while_it_is_read_is_survived) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(fmt::format("seed {}", seed));
    constexpr uint32_t kSize = 11;
    AnyRig rig({.size = kSize,
                .features = kPacked | kEvents,
                .scattered = true,
                .desc_skew = 4080,
                .used_skew = 4092});
    const Vring v = AnyRig::vring(rig.shape);
    std::vector<volatile uint16_t*> words;
    const std::pair<uint64_t, uint64_t> parts[] = {
        {v.desc, 16 * kSize}, {v.avail, 4}, {v.used, 4}, {kTable + kPage - 24, 64}};
    for (const auto& part : parts)
        for (uint64_t o = 0; o < part.second; o += 2)
            words.push_back(
                reinterpret_cast<volatile uint16_t*>(rig.space.host_at(part.first + o)));

    std::atomic<bool> stop{false};
    std::thread guest([&] {
        std::mt19937 random(seed);
        const uint16_t likely[] = {0,      1,      2,      16,     48,     0x4000, 0x5000,
                                   0x80,   0x81,   0x82,   0x84,   0x8000, 0x8001, 0x8002,
                                   0x8004, 0x4001, 0x0fe8, 0x0080, 0x8000, 0xffff};
        while (!stop.load(std::memory_order_relaxed)) {
            const uint32_t r = random();
            scribble(words[r % words.size()], r >> 30 != 0 ? likely[(r >> 16) % std::size(likely)]
                                                           : uint16_t(r >> 8));
        }
    });

    // Where nothing is available, make something so: a few descriptors, or a list without an end.
    const auto make_available = [&](unsigned round) {
        PackedDriver::Place at{rig.queue.next_base() & 0x7fff,
                               (rig.queue.next_base() & 0x8000) != 0};
        const bool endless = round % 16 == 0;
        for (uint32_t i = 0; i < (endless ? kSize : 4); ++i, at.step(kSize)) {
            const unsigned extra = endless ? 1 : (round >> i) % 8;
            const auto word = [&](uint32_t offset) {
                return reinterpret_cast<volatile uint16_t*>(
                    rig.space.host_at(v.desc + 16 * at.slot + offset));
            };
            const uint16_t where[] = {0x5000, 0x4000, 0x9999, 0x5000};
            scribble(word(0), uint16_t(kPage - 24));
            scribble(word(2), where[round / 3 % 4]);
            scribble(word(8), uint16_t(round % 2 != 0 ? 48 : 16));
            scribble(word(10), 0);
            scribble(word(14), uint16_t((at.wrap ? 0x80 : 0x8000) | extra));
        }
    };

    std::vector<std::byte> copy(256);
    unsigned chains = 0, malformed = 0, faults = 0, broken = 0;
    using std::chrono::steady_clock;
    const auto start = steady_clock::now();
    const auto enough = [&] {
        const auto elapsed = steady_clock::now() - start;
        const bool seen = chains >= 100 && malformed >= 100 && faults >= 10 && broken >= 10;
        return elapsed > std::chrono::seconds(seen ? 0 : 30) + std::chrono::milliseconds(300);
    };
    std::vector<Taken> held;
    unsigned slots = 0;
    for (unsigned round = 0; !enough(); ++round) {
        const Pop pop = rig.queue.available(round % 4) != 0 || round % 2 != 0
                            ? rig.queue.pop(rig.chain)
                            : Pop::kEmpty;
        if (pop != Pop::kBroken && pop != Pop::kEmpty) {
            held.push_back(rig.chain.taken());
            slots += held.back().slots;
            ASSERT_GE(held.back().slots, 1);
            ASSERT_LE(slots, kSize);
        }
        if (pop == Pop::kChain) {
            ++chains;
            uint64_t total = 0;
            for (const Segment& s : rig.chain.readable()) total += s.len;
            ASSERT_EQ(total, rig.chain.readable_bytes());
            rig.queue.gather(rig.chain.readable(), copy);
            rig.queue.scatter(copy, rig.chain.writable());
        }
        malformed += pop == Pop::kMalformed;
        faults += pop == Pop::kFault;
        broken += pop == Pop::kBroken;
        if (pop == Pop::kEmpty) make_available(round);
        if (pop == Pop::kBroken || round % 5 == 0) {
            if (round % 3 == 0 && !held.empty()) {
                rig.queue.unpop(held.back());
                held.pop_back();
            }
            for (; !held.empty(); held.pop_back()) rig.queue.push(held.back(), round % 2);
            slots = 0;
            rig.queue.complete();
            rig.queue.enable_notifications(round % 2 != 0);
            if (pop == Pop::kBroken) rig.queue.start_at(rig.queue.next_base());
            ASSERT_EQ(rig.queue.next_base() >> 16, rig.queue.next_base() & 0xffff);
            ASSERT_LT(rig.queue.next_base() & 0x7fff, kSize);
        }
    }
    stop = true;
    guest.join();
    EXPECT_GT(chains, 0u);
    EXPECT_GT(malformed, 0u);
    EXPECT_GT(faults, 0u);
    EXPECT_GT(broken, 0u);
    std::printf("%u chains, %u malformed, %u faults, %u broken\n", chains, malformed, faults,
                broken);
}

}  // namespace
}  // namespace viommu::virtq::test
