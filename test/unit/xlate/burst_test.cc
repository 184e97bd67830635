// SPDX-License-Identifier: BSD-3-Clause
/// Reader::translate_burst() gives the answers of translate(), one by one.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "viommu_xlate.hh"

namespace viommu::xlate {
namespace {

constexpr EndpointId kEndpoint = 3;

/// A table with one endpoint in one domain.
struct Burst : testing::Test {
    void make(const table::Geometry& g = {}) {
        reader.reset();
        auto made = table::Table::create(g);
        ASSERT_TRUE(made) << made.error().message;
        table = std::move(*made);
        const table::Reserved hole[] = {{{{0x20000}, {0x20fff}}, true}};
        ASSERT_TRUE(table->add_endpoint(kEndpoint, hole));
        ASSERT_EQ(table->attach(kEndpoint, 1, false), Status::kOk);
        reader.emplace(std::move(*Reader::create(*table, faults, kEndpoint)));
    }
    Status map(uint64_t iova, uint64_t bytes, uint64_t gpa, Access rights) {
        return table->map(1, *IovaRange::from_length({iova}, bytes), {gpa}, rights);
    }
    /// What Nearby finds, all of it, is what translate() says; after each question the next.
    void compare_nearby(const std::vector<Lookup>& in, Access need) {
        reader->enter();
        for (const Lookup& q : in) {
            if (q.bytes == 0) continue;
            Gpa gpa{};
            const bool found = Nearby(*reader).find(q.iova, q.bytes, need, gpa);
            const Translation t = reader->translate(q.iova, q.bytes, need);
            if (!found) continue;
            ASSERT_EQ(t.bytes(), q.bytes) << q.iova.value;
            ASSERT_EQ(t.gpa(), gpa) << q.iova.value;
            ++nearby;
        }
        reader->leave();
    }
    /// Both ways, in sections of their own, so that neither profits from the other's walks.
    void compare(const std::vector<Lookup>& in, Access need) {
        std::vector<Translation> one;
        unsigned faulted = 0;
        compare_nearby(in, need);
        reader->enter();
        for (const Lookup& q : in) {
            one.push_back(reader->translate(q.iova, q.bytes, need));
            faulted += !one.back();
        }
        reader->leave();
        std::vector<Translation> many(in.size() + 1, Translation::to({0x1234}, 77));
        reader->enter();
        EXPECT_EQ(reader->translate_burst(in, many, need), faulted);
        reader->leave();
        for (size_t i = 0; i < in.size(); ++i) {
            ASSERT_EQ(many[i].bytes(), one[i].bytes()) << i << " of " << in.size();
            if (in[i].bytes == 0) continue;
            ASSERT_EQ(bool(many[i]), bool(one[i])) << i;
            if (one[i]) {
                ASSERT_EQ(many[i].gpa(), one[i].gpa()) << i << " iova " << in[i].iova.value;
                ASSERT_EQ(many[i].rights(), one[i].rights()) << i;
            } else {
                ASSERT_EQ(many[i].fault(), one[i].fault()) << i;
            }
        }
        EXPECT_EQ(many[in.size()].bytes(), 77u) << "written past the last answer";
        answers += in.size() - faulted;
        faults_seen += faulted;
    }

    std::unique_ptr<table::Table> table;
    FaultQueue faults{3};
    std::optional<Reader> reader;
    uint64_t answers = 0;
    uint64_t nearby = 0;
    uint64_t faults_seen = 0;
};

/// Random mappings of all leaf sizes, side by side or not, questions in and around them.
struct BurstShapes : Burst, testing::WithParamInterface<table::Geometry> {};

TEST_P(BurstShapes, burst_gives_the_answers_of_translate) {
    std::mt19937_64 rng(20261121);
    const auto below = [&](uint64_t n) { return rng() % n; };
    make(GetParam());
    const uint64_t granule = uint64_t{1} << GetParam().granule_lg2;
    const IovaRange input = GetParam().input;
    const uint64_t slot[] = {granule, granule << 9, granule << 18};
    std::vector<Lookup> ends;  // of mappings
    for (int i = 0; i < 400; ++i) {
        const uint64_t unit = slot[below(3)];
        const uint64_t at = (input.first.value + below(input.extent())) & -unit;
        uint64_t gpa = below(1u << 20) * granule;
        for (uint64_t next = at, n = 1 + below(3); n-- > 0;) {  // some continue one another
            const uint64_t bytes = below(2) ? unit : granule * (1 + below(700));
            if (next + bytes < next || !input.contains(*IovaRange::from_length({next}, bytes)))
                break;
            if (map(next, bytes, gpa, Access(below(8))) == Status::kOk)
                ends.push_back({{next}, bytes});
            next += bytes;
            gpa += bytes;
        }
    }
    ASSERT_GT(ends.size(), 20u);
    for (int round = 0; round < 400; ++round) {
        // 0 to 100: none, parts of a chunk, several chunks.
        std::vector<Lookup> in(below(5) == 0 ? 32 : below(101));
        const bool local = below(2) == 0;
        const Lookup home = ends[below(ends.size())];
        for (Lookup& q : in) {
            const Lookup& m = local ? home : ends[below(ends.size())];
            q.iova = m.iova + (below(2) ? below(m.bytes) : m.bytes - 1 - below(16));
            if (below(16) == 0) q.iova = {rng()};
            q.bytes = below(2) ? 1 + below(2048) : below(3 * m.bytes);
        }
        compare(in, Access(below(4)));
    }
    EXPECT_GT(answers, 1000u);
    if (GetParam().granule_lg2 == table::kMinGranuleLg2) {
        EXPECT_GT(nearby, 1000u);
    }
    EXPECT_GT(faults_seen, 1000u);
}

INSTANTIATE_TEST_SUITE_P(
    Trees, BurstShapes,
    testing::Values(table::Geometry{}, table::Geometry{.input = {{0x1000000}, {0x3fffffff}}},
                    table::Geometry{.input = {{0}, {~uint64_t{0}}}},
                    table::Geometry{.granule_lg2 = 16, .input = {{0}, {(uint64_t{1} << 45) - 1}}},
                    table::Geometry{.granule_lg2 = 21}),
    [](const auto& info) {
        return fmt::format("granule{}_to_{:x}", info.param.granule_lg2, info.param.input.last.value);
    });

TEST_F(Burst, bypass_and_blocked_endpoints_answer_alike) {
    make();
    const std::vector<Lookup> in = {{{0x1000}, 4}, {{0x1ff00}, 0x1000}, {{0x20010}, 8},
                                    {{~uint64_t{0}}, 2}, {{0x5000}, 0}};
    ASSERT_EQ(table->attach(kEndpoint, 2, true), Status::kOk);
    compare(in, Access::kRead);
    EXPECT_EQ(answers, 3u);
    // All below the hole is known to be the identity then (but for its last byte), nothing in it
    // or over its edge.
    nearby = 0;
    compare_nearby({{{0x1000}, 4}, {{0}, 0x1ffff}, {{0x1fffe}, 1}, {{0x1fffe}, 3}, {{0x20010}, 8},
                    {{0x20fff}, 1}},
                   Access::kWrite);
    EXPECT_EQ(nearby, 3u);
    compare_nearby({{{0x21000}, 8}, {{0x22000}, 8}, {{0x1000}, 1}}, Access::kRead);
    EXPECT_EQ(nearby, 4u) << "and all above it";
    ASSERT_EQ(table->detach(kEndpoint, 2), Status::kOk);
    compare(in, Access::kRead);
    EXPECT_EQ(answers, 3u) << "nothing is translated without a domain";
}

TEST_F(Burst, same_page_all_over_is_answered_all_over) {
    make();
    ASSERT_EQ(map(0x10000, 4096, 0x50000, Access::kReadWrite), Status::kOk);
    compare(std::vector<Lookup>(100, {{0x10008}, 64}), Access::kWrite);
    EXPECT_EQ(answers, 100u);
}

TEST_F(Burst, empty_burst_is_no_fault) {
    make();
    compare({}, Access::kRead);
    EXPECT_EQ(faults_seen, 0u);
}

}  // namespace
}  // namespace viommu::xlate
