// SPDX-License-Identifier: BSD-3-Clause
/// Readers under a live writer. Checks the theorem of lib/table: a translation never outlives the
/// answer to its UNMAP.
///
/// Guest memory is an array of pages, each holding one word. The writer maps page p at IOVA slot s
/// (after writing s's number into the page), unmaps it, waits for the grace period and then poisons
/// the page: from that moment no reader may see it through any section. Readers translate random
/// slots and read what they find: the slot's number, or a fault, and never poison.
/// The page words are plain memory, so under TSan a missing happens-before between a reader's last
/// use and the poisoning is reported as a race even when the timing happens to be kind.
///
/// VIOMMU_STRESS_SECONDS: how long (default 3).
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

#include "viommu_xlate.hh"

namespace viommu {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kSlots = 64;
constexpr uint64_t kPoison = 0xdeadbeefdeadbeef;
constexpr EndpointId kEndpoint = 8;

struct Memory {
    /// One word per page, each on its own cache line. Plain on purpose, see above.
    struct alignas(64) Page {
        uint64_t word = kPoison;
    };
    std::vector<Page> pages = std::vector<Page>(2 * kSlots);
};

struct Tally {
    uint64_t sections = 0, hits = 0, faults = 0, violations = 0;
};

/// IOVA of a slot: spread over many nodes and levels, so that nodes come and go.
uint64_t iova_of(uint64_t slot) {
    return slot % 4 == 0 ? slot * kPage : slot * ((uint64_t{1} << 21) + kPage);
}

void read_until(const std::atomic<bool>& stop, table::Table& table, xlate::FaultQueue& faults,
                const Memory& memory, unsigned seed, Tally& tally) {
    auto reader = std::move(*xlate::Reader::create(table, faults, kEndpoint));
    std::mt19937 rng(seed);
    while (!stop.load(std::memory_order_relaxed)) {
        reader.enter();
        for (int i = 0; i < 32; ++i) {
            const uint64_t slot = rng() % kSlots;
            const auto t = reader.translate({iova_of(slot)}, 8, Access::kRead);
            if (!t) {
                ++tally.faults;
                continue;
            }
            ++tally.hits;
            tally.violations += memory.pages[t.gpa().value / kPage].word != slot;
        }
        reader.leave();
        ++tally.sections;
        if (rng() % 64 == 0) std::this_thread::yield();
    }
}

TEST(ReadersUnderALiveWriter, translation_never_outlives_the_answer) {
    const char* seconds = std::getenv("VIOMMU_STRESS_SECONDS");
    const auto end = std::chrono::steady_clock::now() +
                     std::chrono::seconds(seconds == nullptr ? 3 : std::atoi(seconds));
    auto table = std::move(*table::Table::create({}));
    ASSERT_TRUE(table->add_endpoint(kEndpoint));
    ASSERT_EQ(table->attach(kEndpoint, 1, false), Status::kOk);
    xlate::FaultQueue faults;
    Memory memory;
    std::atomic<bool> stop{false};
    Tally tallies[2];
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 2; ++i)
        threads.emplace_back([&, i] { read_until(stop, *table, faults, memory, i, tallies[i]); });

    const unsigned seed = std::random_device{}();
    std::printf("seed %u\n", seed);
    std::mt19937 rng(seed);
    std::vector<uint64_t> page_of(kSlots, ~uint64_t{0});
    std::vector<uint64_t> free_pages;
    for (uint64_t p = 0; p < memory.pages.size(); ++p) free_pages.push_back(p);
    uint64_t maps = 0, unmaps = 0, moves = 0, waits = 0;
    while (std::chrono::steady_clock::now() < end) {
        // One pass: a few requests that share one wait, as the request queue does it.
        std::vector<uint64_t> to_poison;
        for (uint64_t n = rng() % 8 + 1; n > 0; --n) {
            const uint64_t slot = rng() % kSlots;
            uint64_t& page = page_of[slot];
            const IovaRange range{{iova_of(slot)}, {iova_of(slot) + kPage - 1}};
            if (page == ~uint64_t{0}) {
                page = free_pages.back();
                free_pages.pop_back();
                memory.pages[page].word = slot;
                ASSERT_EQ(table->map(1, range, {page * kPage}, Access::kReadWrite), Status::kOk);
                ++maps;
            } else {
                ASSERT_EQ(table->unmap(1, range), Status::kOk);
                to_poison.push_back(page);
                page = ~uint64_t{0};
                ++unmaps;
            }
        }
        if (rng() % 64 == 0) {  // everything away at once, and a new domain
            ASSERT_EQ(table->attach(kEndpoint, 2, false), Status::kOk);
            ASSERT_EQ(table->attach(kEndpoint, 1, false), Status::kOk);
            for (uint64_t& page : page_of)
                if (page != ~uint64_t{0}) to_poison.push_back(std::exchange(page, ~uint64_t{0}));
            ++moves;
        }
        if (!table->dirty()) continue;
        const auto token = table->start_grace();
        while (!table->grace_over(token)) std::this_thread::yield();
        ++waits;
        for (const uint64_t page : to_poison) {
            memory.pages[page].word = kPoison;
            free_pages.push_back(page);
        }
    }
    stop.store(true);
    for (auto& t : threads) t.join();
    EXPECT_EQ(table->self_check(), "");
    for (const Tally& t : tallies) {
        std::printf("reader: %lu sections, %lu hits, %lu faults, %lu violations\n", t.sections,
                    t.hits, t.faults, t.violations);
        EXPECT_EQ(t.violations, 0u);
        EXPECT_GT(t.hits, 0u);
        EXPECT_GT(t.faults, 0u);
    }
    std::printf("writer: %lu maps, %lu unmaps, %lu moves, %lu waits\n", maps, unmaps, moves, waits);
}

}  // namespace
}  // namespace viommu
