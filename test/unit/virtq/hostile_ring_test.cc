// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "reference_driver.hh"

namespace viommu::virtq::test {
namespace {

constexpr uint64_t kData = Rig::kDataAt;

/// Make the descriptors available as they are, beginning with `head`.
Pop pop_raw(Rig& rig, const std::vector<Desc>& descs, uint16_t head = 0) {
    for (size_t i = 0; i < descs.size(); ++i) rig.driver.desc(uint32_t(i), descs[i]);
    rig.driver.offer(head);
    rig.driver.publish();
    return rig.queue.pop(rig.chain);
}

TEST(HostileChain, loops_end) {
    Rig rig({.size = 4});
    EXPECT_EQ(pop_raw(rig, {{kData, 1, kNext, 0}}), Pop::kMalformed);
    EXPECT_EQ(pop_raw(rig, {{kData, 1, kNext, 1}, {kData, 1, kNext, 0}}), Pop::kMalformed);
    EXPECT_EQ(pop_raw(rig, {{kData, 0, kNext, 0}}), Pop::kMalformed);
    EXPECT_EQ(rig.chain.head(), 0);
}

TEST(HostileChain, whole_table_as_one_chain_is_not_a_loop) {
    Rig rig({.size = 4});
    EXPECT_EQ(
        pop_raw(
            rig,
            {{kData, 1, kNext, 1}, {kData, 1, kNext, 2}, {kData, 1, kNext, 3}, {kData, 1, 0, 0}}),
        Pop::kChain);
}

TEST(HostileChain, next_outside_the_table_is_malformed) {
    Rig rig({.size = 4});
    EXPECT_EQ(pop_raw(rig, {{kData, 1, kNext, 4}}), Pop::kMalformed);
    EXPECT_EQ(pop_raw(rig, {{kData, 1, kNext, 65535}}), Pop::kMalformed);
    EXPECT_EQ(pop_raw(rig, {{kData, 1, 0, 65535}}), Pop::kChain) << "next without NEXT is nothing";
}

TEST(HostileChain, readable_after_writable_is_malformed) {
    Rig rig({.size = 4});
    EXPECT_EQ(pop_raw(rig, {{kData, 1, kNext | kWrite, 1}, {kData, 1, 0, 0}}), Pop::kMalformed);
}

TEST(HostileChain, buffers_that_overflow_are_malformed) {
    Rig rig({.size = 4});
    EXPECT_EQ(pop_raw(rig, {{~uint64_t{0} - 3, 5, 0, 0}}), Pop::kMalformed);
    EXPECT_EQ(pop_raw(rig, {{~uint64_t{0} - 3, 4, 0, 0}}), Pop::kChain);
    EXPECT_EQ(pop_raw(rig, {{0, 0xffffffff, kNext, 1}, {0, 2, 0, 0}}), Pop::kMalformed);
    EXPECT_EQ(pop_raw(rig, {{0, 0xffffffff, kNext, 1}, {0, 1, 0, 0}}), Pop::kChain);
}

TEST(HostileChain, chain_of_the_whole_largest_queue_is_taken_when_there_is_room) {
    Rig rig({.size = 32768});
    std::vector<Desc> descs;
    for (uint32_t i = 0; i < 32768; ++i) descs.push_back({kData, 1, kNext, uint16_t(i + 1)});
    descs.back().flags = 0;
    EXPECT_EQ(pop_raw(rig, descs), Pop::kMalformed) << "nothing was reserved";
    rig.chain.reserve(32768);
    EXPECT_EQ(pop_raw(rig, descs), Pop::kChain);
    EXPECT_EQ(rig.chain.readable().size(), 32768u);
    descs.back() = {kData, 0, kNext, 0};
    EXPECT_EQ(pop_raw(rig, descs), Pop::kMalformed) << "a loop";
    EXPECT_EQ(rig.chain.descriptors(), 32768u);
}

TEST(HostileIndex, index_ahead_by_more_than_the_size_breaks_the_ring) {
    for (const uint16_t start : {uint16_t{0}, uint16_t{65530}}) {
        Rig rig({.size = 8, .start = start});
        rig.driver.publish_index(uint16_t(start + 9));
        EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kBroken);
        EXPECT_TRUE(rig.queue.broken());
        EXPECT_EQ(rig.queue.available(), 0u);
        EXPECT_EQ(rig.queue.next_base(), start);
        rig.driver.publish_index(uint16_t(start + 1));
        EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kBroken) << "until restarted";
        EXPECT_TRUE(rig.queue.arm()) << "nothing to stay awake for";
        EXPECT_EQ(rig.queue.stats().broken.was(), 1u);
        rig.queue.start_at_used();
        EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    }
}

TEST(HostileIndex, index_going_backwards_breaks_the_ring) {
    Rig rig({.size = 8, .start = 5});
    rig.driver.publish_index(4);
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kBroken);
}

TEST(HostileIndex, head_outside_the_table_breaks_the_ring) {
    for (const uint16_t head : {uint16_t{8}, uint16_t{65535}}) {
        Rig rig({.size = 8});
        rig.driver.chain({{kData, 1, 0, 0}});
        rig.driver.offer(head);
        rig.driver.offer(0);
        rig.driver.publish();
        EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
        EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kBroken);
        EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kBroken);
        EXPECT_EQ(rig.queue.available(), 0u);
        EXPECT_EQ(rig.queue.next_base(), 1u);
        EXPECT_EQ(rig.queue.stats().broken.was(), 1u);
    }
}

TEST(HostileWork, scattered_jumps_in_an_indirect_table_resolve_bounded_amounts) {
    Rig rig({.size = 32768}, 1, 64);
    const uint32_t entries = 64 * kPage / 16;
    for (uint32_t i = 0; i < entries; ++i)
        rig.space.put(Rig::kTableAt + 16 * i, Desc{1, 0, kNext, uint16_t((i + 300) % entries)});
    rig.driver.chain({{Rig::kTableAt, entries * 16, kIndirect, 0}});
    rig.driver.publish();
    rig.space.resolves = rig.space.longest = 0;
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kMalformed);
    EXPECT_LE(rig.space.resolves, uint64_t{rig.queue.size()});
    EXPECT_LE(rig.space.longest, kPage);
}

/// Not instrumented: a guest that writes what the device reads is the point.
__attribute__((no_sanitize("thread"), no_sanitize("address"), noinline)) void scribble(
    volatile uint16_t* at, uint16_t value) {
    *at = value;
}

/// Make the available ring plausible again.
void make_available(Rig& rig, uint16_t chains) {
    const auto word = [&](uint64_t offset) {
        return reinterpret_cast<volatile uint16_t*>(rig.space.host_at(Rig::kAvailAt + offset));
    };
    for (uint16_t i = 0; i < rig.queue.size(); ++i) scribble(word(4 + 2 * i), i);
    scribble(word(2), uint16_t(rig.queue.next_base() + chains));
}

/// A second thread writes nonsense, mostly plausible, over the rings and an indirect table while
/// the queue is used. Nothing to expect but that it ends, that what it hands out keeps the
/// promises, and that the sanitizers are silent.
TEST(HostileMemory, guest_changing_everything_while_it_is_read_is_survived) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(fmt::format("seed {}", seed));
    constexpr uint32_t kSize = 16;
    Rig rig({.size = kSize, .scattered = true, .desc_skew = 4080, .used_skew = 4092}, 4, 4);
    const uint64_t parts[][2] = {
        {Rig::vring({.desc_skew = 4080}).desc, wire::desc_table_bytes(kSize)},
        {Rig::kAvailAt, wire::avail_ring_bytes(kSize)},
        {Rig::vring({.used_skew = 4092}).used, wire::used_ring_bytes(kSize)},
        {Rig::kTableAt + kPage - 24, 64},
    };
    std::vector<volatile uint16_t*> words;
    for (const auto& [at, bytes] : parts)
        for (uint64_t o = 0; o < bytes; o += 2)
            words.push_back(reinterpret_cast<volatile uint16_t*>(rig.space.host_at(at + o)));

    std::atomic<bool> stop{false};
    std::thread guest([&] {
        std::mt19937 random(seed);
        const uint16_t likely[] = {0,  1,     2,      3,      4,      5,      16,
                                   48, 0x100, 0x4000, 0x5000, 0xffff, 0x0fe8, 0x4001};
        while (!stop.load(std::memory_order_relaxed)) {
            const uint32_t r = random();
            scribble(words[r % words.size()],
                     r >> 30 != 0 ? likely[(r >> 16) % std::size(likely)] : uint16_t(r >> 8));
        }
    });

    std::vector<std::byte> copy(256);
    unsigned chains = 0, malformed = 0, faults = 0, broken = 0;
    using std::chrono::steady_clock;
    const auto start = steady_clock::now();
    const auto enough = [&] {  // also on a machine that is slow and busy
        const auto elapsed = steady_clock::now() - start;
        const bool seen = chains >= 100 && malformed >= 100 && faults >= 10 && broken >= 10;
        return elapsed > std::chrono::seconds(seen ? 0 : 30) + std::chrono::milliseconds(300);
    };
    for (unsigned round = 0; !enough(); ++round) {
        const Pop pop = rig.queue.pop(rig.chain);
        if (pop == Pop::kBroken || pop == Pop::kEmpty) {
            broken += pop == Pop::kBroken;
            rig.queue.complete();
            rig.queue.enable_notifications(round % 2 != 0);
            if (pop == Pop::kBroken) rig.queue.start_at_used();
            make_available(rig, 8);
            continue;
        }
        ASSERT_LT(rig.chain.head(), kSize);
        if (pop == Pop::kChain) {
            ++chains;
            uint64_t total = 0;
            for (const Segment& s : rig.chain.readable()) total += s.len;
            ASSERT_EQ(total, rig.chain.readable_bytes());
            ASSERT_LE(rig.chain.readable().size() + rig.chain.writable().size(),
                      std::max(kSize, Chain::kMinSegments));
            rig.queue.gather(rig.chain.readable(), copy);
            rig.queue.scatter(copy, rig.chain.writable());
        }
        malformed += pop == Pop::kMalformed;
        faults += pop == Pop::kFault;
        rig.queue.push(rig.chain.taken(), 0);
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
