// SPDX-License-Identifier: BSD-3-Clause
/// An endpoint that is moved between two domains while a reader translates: each section sees the
/// one or the other, and there is no moment at which the endpoint is blocked.
#include <gtest/gtest.h>

#include <thread>

#include "viommu_xlate.hh"

namespace viommu::xlate {
namespace {

constexpr uint64_t kPage = 4096;
constexpr EndpointId kMoved = 1;
constexpr uint64_t kPages = 8;
/// Far apart, so that each is found in a node of its own.
constexpr uint64_t iova_of(uint64_t page) { return page * ((uint64_t{1} << 30) + kPage); }
constexpr uint64_t gpa_of(DomainId domain, uint64_t page) {
    return (uint64_t{domain} << 32) + page * kPage;
}

struct Seen {
    uint64_t of_domain[3] = {0, 0, 0};
    uint64_t mixtures = 0;
    uint64_t faults = 0;
    std::atomic<uint64_t> sections{0};
};

void read_until(const std::atomic<bool>& stop, table::Table& table, FaultQueue& faults, Seen& seen) {
    auto reader = std::move(*Reader::create(table, faults, kMoved));
    while (!stop.load(std::memory_order_relaxed)) {
        uint64_t domain = 0;
        reader.enter();
        for (uint64_t page = 0; page < kPages; ++page) {
            const auto t = reader.translate({iova_of(page)}, 8, Access::kRead);
            if (!t) {
                ++seen.faults;
                continue;
            }
            const uint64_t from = t.gpa().value >> 32;
            seen.mixtures += domain != 0 && from != domain;
            domain = from;
        }
        reader.leave();
        if (domain == 1 || domain == 2) ++seen.of_domain[domain];
        seen.sections.fetch_add(1, std::memory_order_relaxed);
    }
}

// 5.13.6.3-D8
TEST(MovedEndpoint, reader_sees_one_domain_or_the_other) {
    auto table = std::move(*table::Table::create({}));
    for (const EndpointId e : {kMoved, EndpointId{2}, EndpointId{3}})
        ASSERT_TRUE(table->add_endpoint(e));
    // Endpoints that keep the domains alive while the moved one is in the other.
    ASSERT_EQ(table->attach(2, 1, false), Status::kOk);
    ASSERT_EQ(table->attach(3, 2, false), Status::kOk);
    for (const DomainId domain : {1u, 2u})
        for (uint64_t page = 0; page < kPages; ++page)
            ASSERT_EQ(table->map(domain, *IovaRange::from_length({iova_of(page)}, kPage),
                                 {gpa_of(domain, page)}, Access::kReadWrite),
                      Status::kOk);
    ASSERT_EQ(table->attach(kMoved, 1, false), Status::kOk);

    FaultQueue faults;
    std::atomic<bool> stop{false};
    Seen seen;
    std::thread reader([&] { read_until(stop, *table, faults, seen); });
    constexpr uint64_t kMoves = 200;
    for (uint64_t move = 0; move < kMoves; ++move) {
        // Let the reader see some of each, even where the two share a core.
        const uint64_t before = seen.sections.load(std::memory_order_relaxed);
        while (move % 20 == 0 && seen.sections.load(std::memory_order_relaxed) < before + 2)
            std::this_thread::yield();
        const DomainId to = move % 2 == 0 ? 2 : 1;
        ASSERT_EQ(table->attach(kMoved, to, false), Status::kOk);
        // Each other move is waited for, as the request queue does; the rest pile up.
        if (move % 3 != 0) continue;
        const auto token = table->start_grace();
        while (!table->grace_over(token)) std::this_thread::yield();
    }
    // Now in domain 1, then in 2: the reader has certainly seen both.
    for (const DomainId last : {1u, 2u}) {
        ASSERT_EQ(table->attach(kMoved, last, false), Status::kOk);
        const uint64_t before = seen.sections.load(std::memory_order_relaxed);
        while (seen.sections.load(std::memory_order_relaxed) < before + 2)
            std::this_thread::yield();
    }
    stop.store(true);
    reader.join();
    EXPECT_EQ(seen.mixtures, 0u);
    EXPECT_EQ(seen.faults, 0u);
    EXPECT_GT(seen.of_domain[1], 0u);
    EXPECT_GT(seen.of_domain[2], 0u);
    EXPECT_EQ(table->self_check(), "");
}

}  // namespace
}  // namespace viommu::xlate
