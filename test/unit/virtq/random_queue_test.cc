// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <random>

#include "reference_driver.hh"

namespace viommu::virtq::test {
namespace {

/// VIOMMU_SEED repeats a run.
unsigned choose_seed() {
    const char* given = std::getenv("VIOMMU_SEED");
    return given != nullptr ? unsigned(std::strtoul(given, nullptr, 0)) : std::random_device{}();
}

/// What the device should find in a chain, and what it will answer.
struct Expected {
    uint16_t head;
    std::vector<std::byte> readable;
    std::vector<Segment> writable;
    uint64_t writable_bytes;
};

struct Session {
    Session(std::mt19937& random, Rig::Shape shape) : random(random), shape(shape), rig(shape) {}

    uint32_t pick(uint32_t below) { return random() % below; }

    /// A chain of random shape, direct or in a table; each gets its own data and table memory.
    bool make_chain() {
        const bool indirect = pick(3) == 0;
        const uint32_t room = indirect ? shape.size : uint32_t(rig.driver.free_descriptors());
        if (rig.driver.free_descriptors() == 0) return false;
        const uint32_t count = 1 + pick(std::min(room, 6u));
        const uint32_t readable = pick(count + 1);
        Expected e{};
        std::vector<Desc> buffers;
        for (uint32_t i = 0; i < count; ++i) {
            const uint32_t len = pick(8) == 0 ? 0 : 1 + pick(200);
            const uint64_t addr = take_data(len);
            const bool writable = i >= readable;
            buffers.push_back({addr, len, writable ? kWrite : uint16_t{0}, 0});
            if (writable) {
                e.writable.push_back({addr, len});
                e.writable_bytes += len;
                continue;
            }
            for (uint32_t b = 0; b < len; ++b) {
                const auto byte = std::byte(random());
                rig.space.put(addr + b, byte);
                e.readable.push_back(byte);
            }
        }
        const auto head = indirect ? offer_indirect(buffers) : rig.driver.chain(buffers);
        if (!head) return false;
        e.head = *head;
        flight.push_back(std::move(e));
        return true;
    }

    std::optional<uint16_t> offer_indirect(const std::vector<Desc>& buffers) {
        const uint64_t table = Rig::kTableAt + table_at;
        table_at = (table_at + 16 * buffers.size() + pick(17)) % (15 * kPage);
        for (size_t i = 0; i < buffers.size(); ++i) {
            Desc d = buffers[i];
            if (i + 1 < buffers.size()) d.flags |= kNext, d.next = uint16_t(i + 1);
            rig.space.put(table + 16 * i, d);
        }
        return rig.driver.chain({{table, uint32_t(16 * buffers.size()), kIndirect, 0}});
    }

    uint64_t take_data(uint32_t len) {
        if (data_at + len > 16 * kPage) data_at = 0;
        const uint64_t at = Rig::kDataAt + data_at;
        data_at += len;
        return at;
    }

    void serve() {
        ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
        if (pick(10) == 0) {
            rig.queue.unpop(rig.chain.taken());
            ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
        }
        const Expected& e = flight[taken++];
        ASSERT_EQ(rig.chain.head(), e.head);
        ASSERT_EQ(rig.chain.readable_bytes(), e.readable.size());
        ASSERT_EQ(rig.chain.writable_bytes(), e.writable_bytes);
        std::vector<std::byte> got(e.readable.size());
        ASSERT_EQ(rig.queue.gather(rig.chain.readable(), got).bytes, got.size());
        ASSERT_EQ(got, e.readable);
        std::vector<std::byte> reply(pick(uint32_t(e.writable_bytes) + 1));
        for (auto& b : reply) b = std::byte(random());
        ASSERT_EQ(rig.queue.scatter(reply, rig.chain.writable()).bytes, reply.size());
        rig.queue.push(rig.chain.taken(), uint32_t(reply.size()));
        replies.push_back(std::move(reply));
    }

    void collect() {
        while (const auto used = rig.driver.pop()) {
            ASSERT_FALSE(replies.empty());
            ASSERT_EQ(used->id, flight.front().head);
            ASSERT_EQ(used->len, replies.front().size());
            size_t at = 0;
            for (const Segment& s : flight.front().writable)
                for (uint32_t b = 0; b < s.len && at < used->len; ++b, ++at)
                    ASSERT_EQ(rig.space.get<std::byte>(s.addr + b), replies.front()[at]);
            flight.pop_front();
            replies.pop_front();
            --taken;
        }
    }

    std::mt19937& random;
    Rig::Shape shape;
    Rig rig;
    std::deque<Expected> flight;  // offered and not collected, oldest first
    std::deque<std::vector<std::byte>> replies;
    size_t taken = 0;  // of flight, by the device
    uint64_t data_at = 0, table_at = 0;
};

TEST(SplitQueueRandom, against_a_reference_driver_agrees) {
    const unsigned seed = choose_seed();
    SCOPED_TRACE(fmt::format("VIOMMU_SEED={}", seed));
    std::printf("seed %u\n", seed);
    std::mt19937 random(seed);
    for (unsigned run = 0; run < 60; ++run) {
        const Rig::Shape shape{.size = 1u << random() % 9,
                               .start = uint16_t(random() % 2 ? random() : 65536 - random() % 64),
                               .scattered = random() % 2 != 0,
                               .desc_skew = uint32_t(random() % 256 * 16),
                               .avail_skew = uint32_t(random() % 2048 * 2),
                               .used_skew = uint32_t(random() % 1024 * 4)};
        Session r(random, shape);
        ASSERT_TRUE(r.rig.is_bound);
        for (unsigned step = 0; step < 300; ++step) {
            // At most 32 in flight: their data must not share memory.
            for (uint32_t n = r.pick(8); n > 0 && r.flight.size() < 32; --n)
                if (!r.make_chain()) break;
            r.rig.driver.publish();
            const size_t waiting = r.flight.size() - r.taken;
            ASSERT_EQ(r.rig.queue.was_available(), waiting);
            for (size_t n = waiting == 0 ? 0 : r.pick(uint32_t(waiting) + 1); n > 0; --n) {
                r.serve();
                if (HasFatalFailure()) return;
            }
            r.rig.queue.complete();
            r.collect();
            if (HasFatalFailure()) return;
        }
    }
}

}  // namespace
}  // namespace viommu::virtq::test
