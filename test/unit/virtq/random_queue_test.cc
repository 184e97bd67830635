// SPDX-License-Identifier: BSD-3-Clause
/// Random use of a queue by a driver that was written from the spec: formats, features, sizes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <random>

#include "any_rig.hh"

namespace viommu::virtq::test {
namespace {

/// VIOMMU_SEED repeats a run.
unsigned choose_seed() {
    const char* given = std::getenv("VIOMMU_SEED");
    return given != nullptr ? unsigned(std::strtoul(given, nullptr, 0)) : std::random_device{}();
}

constexpr unsigned kMost = 32;  // chains in flight; each has data and table memory of its own
constexpr uint32_t kSlotBytes = 2048, kTableBytes = 256;

/// What the device should find in a chain, and what it answered.
struct Flight {
    unsigned slot = 0;
    std::vector<std::byte> readable;
    std::vector<Segment> writable;
    uint64_t writable_bytes = 0;
    Taken taken;
    std::vector<std::byte> reply;
};

struct Session {
    Session(std::mt19937& r, const AnyRig::Shape& s) : random(r), rig(s) {
        for (unsigned i = 0; i < kMost; ++i) slots.push_back(i);
    }
    uint32_t pick(uint32_t below) { return random() % below; }
    bool has(uint64_t bit) const { return (rig.shape.features & bit) != 0; }

    /// A chain of random shape, direct or in a table.
    bool make_chain() {
        const auto room = uint32_t(rig.driver->free_descriptors());
        if (room == 0 || slots.empty()) return false;
        const bool in_table = pick(3) == 0;
        const uint32_t count = 1 + pick(in_table ? 6 : std::min(room, 6u));
        const uint32_t readable = pick(count + 1);
        Flight f;
        f.slot = slots.back();
        uint64_t at = Rig::kDataAt + f.slot * kSlotBytes + pick(64);
        std::vector<Desc> buffers;
        for (uint32_t i = 0; i < count; ++i, at += 250) {
            const uint32_t len = pick(8) == 0 ? 0 : 1 + pick(200);
            const bool writable = i >= readable;
            buffers.push_back({at, len, writable ? kWrite : uint16_t{0}, 0});
            if (writable) {
                f.writable.push_back({at, len});
                f.writable_bytes += len;
                continue;
            }
            for (uint32_t b = 0; b < len; ++b) {
                f.readable.push_back(std::byte(random()));
                rig.space.put(at + b, f.readable.back());
            }
        }
        const uint64_t table = Rig::kTableAt + f.slot * kTableBytes + pick(64);
        const auto id =
            in_table ? rig.driver->indirect(table, buffers) : rig.driver->chain(buffers);
        if (!id) return false;
        slots.pop_back();
        waiting.push_back(*id);
        flights[*id] = std::move(f);
        return true;
    }

    void offer() {
        bool any = false;
        for (uint32_t n = pick(8); n > 0; --n) any |= make_chain();
        rig.driver->publish();
        const bool kick = rig.driver->needs_kick();
        if (asked == Asked::kArmed && any) {
            ASSERT_TRUE(kick);
            if (has(kEvents)) asked = Asked::kUnknown;  // once
        }
        ASSERT_FALSE(kick && asked == Asked::kMuted);
    }

    void take() {
        Taken last{};
        for (int again = pick(10) == 0 ? 2 : 1; again > 0; --again) {
            ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
            last = rig.chain.taken();
            if (again == 2) rig.queue.unpop(last);
        }
        const uint16_t id = waiting.front();
        Flight& f = flights.at(id);
        ASSERT_EQ(last.id, id);
        ASSERT_EQ(rig.chain.readable_bytes(), f.readable.size());
        ASSERT_EQ(rig.chain.writable_bytes(), f.writable_bytes);
        std::vector<std::byte> got(f.readable.size());
        ASSERT_EQ(rig.queue.gather(rig.chain.readable(), got).bytes, got.size());
        ASSERT_EQ(got, f.readable);
        f.reply.resize(pick(uint32_t(f.writable_bytes) + 1));
        for (auto& b : f.reply) b = std::byte(random());
        ASSERT_EQ(rig.queue.scatter(f.reply, rig.chain.writable()).bytes, f.reply.size());
        f.taken = last;
        waiting.pop_front();
        held.push_back(id);
    }

    void give_back() {
        std::vector<uint16_t> batch;
        for (uint32_t n = pick(uint32_t(held.size()) + 1); n > 0; --n) {
            const auto which = has(kInOrder) ? 0 : pick(uint32_t(held.size()));
            const uint16_t id = held[which];
            held.erase(held.begin() + which);
            rig.queue.push(flights.at(id).taken, uint32_t(flights.at(id).reply.size()));
            batch.push_back(id);
        }
        ASSERT_FALSE(returned.empty() && rig.driver->pop()) << "nothing is seen before flush()";
        switch (pick(4)) {
            case 0: rig.driver->want_interrupts(false); break;
            case 1: rig.driver->want_interrupts(true); break;
            case 2: if (has(kEvents)) rig.driver->want_interrupt_after(pick(12)); break;
        }
        const bool expected = rig.driver->expects_signal(batch);
        const bool flushed = rig.queue.flush();
        ASSERT_EQ(flushed, !batch.empty());
        ASSERT_EQ(flushed && rig.queue.needs_signal(), expected);
        returned.insert(returned.end(), batch.begin(), batch.end());
    }

    void collect() {
        for (uint32_t n = pick(kMost); n > 0; --n) {
            const auto used = rig.driver->pop();
            ASSERT_EQ(used.has_value(), !returned.empty());
            if (!used) return;
            ASSERT_EQ(used->id, returned.front());
            const Flight& f = flights.at(returned.front());
            ASSERT_EQ(used->len, f.reply.size());
            size_t at = 0;
            for (const Segment& s : f.writable)
                for (uint32_t b = 0; b < s.len && at < used->len; ++b, ++at)
                    ASSERT_EQ(rig.space.get<std::byte>(s.addr + b), f.reply[at]);
            slots.push_back(f.slot);
            flights.erase(returned.front());
            returned.pop_front();
        }
    }

    void notifications() {
        if (pick(3) == 0) {
            rig.queue.enable_notifications(false);
            asked = Asked::kMuted;
        } else if (pick(3) == 0) {
            const bool idle = rig.queue.arm();
            ASSERT_EQ(idle, waiting.empty());
            asked = idle || !has(kEvents) ? Asked::kArmed : Asked::kUnknown;
        }
    }

    /// A guest's mapping went and came, or, when nothing is held, the VMM paused.
    void bind_again() {
        const Mark mark = rig.queue.mark();
        const uint32_t base = rig.queue.next_base();
        rig.queue.unbind();
        ASSERT_TRUE(rig.queue.bind(rig.space, AnyRig::vring(rig.shape), rig.shape.features));
        if (!held.empty()) return;
        ASSERT_TRUE(rig.queue.continues(mark, base));
        rig.queue.start_at_used_or(base);
        ASSERT_EQ(rig.queue.next_base(), base);
    }

    void step() {
        const auto failed = [] { return testing::Test::HasFatalFailure(); };
        offer();
        if (failed()) return;
        if (!rig.shape.packed()) {
            ASSERT_EQ(rig.queue.was_available(), waiting.size());
            ASSERT_EQ(rig.queue.available() == 0, waiting.empty());
        } else {
            ASSERT_EQ(rig.queue.available(), waiting.size());
            ASSERT_EQ(rig.queue.available(3), std::min<size_t>(3, waiting.size()));
        }
        for (size_t n = pick(uint32_t(waiting.size()) + 1); n > 0 && !failed(); --n) take();
        if (!failed()) give_back();
        if (!failed()) notifications();
        if (!failed() && pick(8) == 0) bind_again();
        if (!failed()) collect();
    }

    enum class Asked { kUnknown, kMuted, kArmed };

    std::mt19937& random;
    AnyRig rig;
    Asked asked = Asked::kUnknown;
    std::map<uint16_t, Flight> flights;
    std::deque<uint16_t> waiting, returned;
    std::vector<uint16_t> held;
    std::vector<unsigned> slots;
};

class QueueRandom : public testing::TestWithParam<uint64_t> {};

TEST_P(QueueRandom, against_a_reference_driver_agrees) {
    const unsigned seed = choose_seed();
    SCOPED_TRACE(fmt::format("VIOMMU_SEED={}", seed));
    std::printf("seed %u\n", seed);
    std::mt19937 random(seed);
    for (const uint32_t size : {1u, 2u, 3u, 4u, 7u, 16u, 100u, 256u, 32768u}) {
        if ((GetParam() & kPacked) == 0 && !std::has_single_bit(size)) continue;
        for (unsigned run = 0; run < (size > 1000 ? 2 : 6); ++run) {
            const bool near_wrap = random() % 2 != 0;
            const uint32_t place = near_wrap ? size - 1 - random() % size % 8 : random() % size;
            const uint32_t start = (GetParam() & kPacked) == 0 ? uint32_t(near_wrap ? -7 : random())
                                                               : place | (random() & 0x8000);
            const AnyRig::Shape shape{.size = size,
                                      .features = GetParam(),
                                      .base = (start & 0xffff) | start << 16,
                                      .scattered = random() % 2 != 0,
                                      .desc_skew = uint32_t(random() % 256 * 16),
                                      .avail_skew = uint32_t(random() % 1024 * 4),
                                      .used_skew = uint32_t(random() % 1024 * 4)};
            SCOPED_TRACE(fmt::format("size {} base {:#x} run {}", size, shape.base, run));
            Session session(random, shape);
            ASSERT_TRUE(session.rig.is_bound);
            for (unsigned step = 0; step < 250; ++step) {
                session.step();
                if (HasFatalFailure()) return;
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Formats, QueueRandom,
                         testing::Values(0, kInOrder, kEvents, kEvents | kInOrder, kPacked,
                                         kPacked | kInOrder, kPacked | kEvents,
                                         kPacked | kEvents | kInOrder));

}  // namespace
}  // namespace viommu::virtq::test
