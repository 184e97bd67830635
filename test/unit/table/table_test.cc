// SPDX-License-Identifier: BSD-3-Clause
#include "viommu_table.hh"

#include <gtest/gtest.h>

namespace viommu::table {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kHuge = uint64_t{2} << 20;
constexpr uint64_t kGiant = uint64_t{1} << 30;

IovaRange range(uint64_t first, uint64_t bytes) { return *IovaRange::from_length({first}, bytes); }

struct TableTest : testing::Test {
    static std::unique_ptr<Table> make(const Geometry& g = {}) {
        auto t = Table::create(g);
        EXPECT_TRUE(t) << t.error().message;
        EXPECT_TRUE((*t)->add_endpoint(8));
        EXPECT_TRUE((*t)->add_endpoint(16));
        return std::move(*t);
    }
    void TearDown() override { EXPECT_EQ(table->self_check(), ""); }
    void wait() { EXPECT_TRUE(table->grace_over(table->start_grace())); }
    Status map(uint64_t iova, uint64_t bytes, uint64_t gpa = 0x40000000) {
        return table->map(1, range(iova, bytes), {gpa}, Access::kReadWrite);
    }
    Status unmap(uint64_t iova, uint64_t bytes) { return table->unmap(1, range(iova, bytes)); }

    std::unique_ptr<Table> table = make();
};

TEST_F(TableTest, map_of_misaligned_numbers_is_range) {
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    EXPECT_EQ(map(kPage + 1, kPage), Status::kRange);
    EXPECT_EQ(map(kPage, kPage + 1), Status::kRange);
    EXPECT_EQ(map(kPage, kPage, 0x40000800), Status::kRange);
    EXPECT_EQ(table->usage().mappings, 0u);
}

TEST_F(TableTest, map_whose_gpa_wraps_is_range) {
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    EXPECT_EQ(map(0, 2 * kPage, -kPage), Status::kRange);
    EXPECT_EQ(map(0, kPage, -kPage), Status::kOk);
}

TEST_F(TableTest, map_outside_the_input_range_is_range) {
    table = make({.input = {{0x10000}, {0x1ffff}}});
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    EXPECT_EQ(map(0xf000, kPage), Status::kRange);
    EXPECT_EQ(map(0x1f000, 2 * kPage), Status::kRange);
    EXPECT_EQ(map(0x10000, 0x10000), Status::kOk);
}

TEST_F(TableTest, map_over_anything_is_inval_and_changes_nothing) {
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    ASSERT_EQ(map(kHuge, kHuge), Status::kOk);
    ASSERT_EQ(map(kGiant, kPage), Status::kOk);
    const auto before = table->usage();
    EXPECT_EQ(map(kHuge, kPage), Status::kInval);
    EXPECT_EQ(map(2 * kHuge - kPage, 2 * kPage), Status::kInval);
    EXPECT_EQ(map(0, kHuge + kPage), Status::kInval);
    EXPECT_EQ(map(kGiant, kGiant), Status::kInval);
    EXPECT_EQ(map(0, uint64_t{1} << 48), Status::kInval);
    EXPECT_EQ(table->usage().mappings, before.mappings);
    EXPECT_EQ(table->usage().nodes_used, before.nodes_used);
}

TEST_F(TableTest, unmap_that_would_split_a_mapping_is_range_and_removes_nothing) {
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    ASSERT_EQ(map(0, 2 * kPage), Status::kOk);
    ASSERT_EQ(map(4 * kHuge, kHuge), Status::kOk);
    EXPECT_EQ(unmap(0, kPage), Status::kRange);
    EXPECT_EQ(unmap(kPage, kPage), Status::kRange);
    EXPECT_EQ(unmap(0, 4 * kHuge + kPage), Status::kRange);
    EXPECT_EQ(unmap(kPage, 8 * kHuge), Status::kRange);
    EXPECT_EQ(unmap(0, 1), Status::kRange);
    EXPECT_EQ(table->usage().mappings, 2u);
    EXPECT_EQ(unmap(0, 8 * kHuge), Status::kOk);
    EXPECT_EQ(table->usage().mappings, 0u);
}

TEST_F(TableTest, unmap_of_the_whole_space_removes_every_mapping) {
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    for (uint64_t i = 0; i < 100; ++i)
        ASSERT_EQ(map(i * 37 * kHuge + i * kPage, (i % 5 + 1) * kPage), Status::kOk);
    EXPECT_EQ(table->unmap(1, {{0}, {~uint64_t{0}}}), Status::kOk);
    EXPECT_EQ(table->usage().mappings, 0u);
    wait();
    EXPECT_EQ(table->usage().nodes_used, 1u);  // the root
}

TEST_F(TableTest, unmap_unlinks_what_it_covers_whole_however_much_that_is) {
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    for (uint64_t i = 0; i < 400; ++i) ASSERT_EQ(map(i * kGiant + kPage, kPage), Status::kOk);
    wait();
    EXPECT_EQ(table->usage().nodes_used, 1u + 1 + 2 * 400);
    EXPECT_EQ(table->unmap(1, {{0}, {(uint64_t{1} << 48) - 1}}), Status::kOk);
    EXPECT_EQ(table->usage().mappings, 0u);
    EXPECT_EQ(table->usage().trees_waiting, 1u) << "one subtree below the root";
    EXPECT_EQ(table->usage().nodes_used, 1u + 1 + 2 * 400) << "readers may be in it";
    wait();
    EXPECT_EQ(table->usage().nodes_used, 1u);
}

TEST_F(TableTest, unmap_of_a_part_unlinks_the_subtrees_in_it) {
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    for (uint64_t i = 0; i < 40; ++i)
        for (uint64_t j = 0; j < 3; ++j)
            ASSERT_EQ(map(i * kGiant + j * kHuge, kPage), Status::kOk);
    EXPECT_EQ(unmap(10 * kGiant + kHuge, 20 * kGiant), Status::kOk);
    EXPECT_EQ(table->usage().mappings, 120u - 60);
    EXPECT_EQ(table->usage().trees_waiting, 2u + 19 + 1);
    EXPECT_EQ(table->self_check(), "");
    EXPECT_EQ(unmap(0, kGiant), Status::kOk);
    EXPECT_EQ(table->usage().mappings, 57u);
}

TEST_F(TableTest, freed_subtrees_are_used_again_to_the_last_node) {
    table = make({.max_endpoints = 2, .max_domains = 2, .arena_bytes = 100 * kPage});
    const auto fill = [&] {
        uint64_t n = 0;
        while (map(n * 3 * kGiant + kHuge, kHuge + kPage) == Status::kOk) ++n;
        EXPECT_EQ(table->self_check(), "");
        return n;
    };
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    const uint64_t first = fill();
    EXPECT_GT(first, 20u);
    const uint64_t nodes_free = table->usage().nodes_free;
    ASSERT_EQ(table->unmap(1, {{0}, {~uint64_t{0}}}), Status::kOk);
    wait();
    EXPECT_EQ(fill(), first);
    EXPECT_EQ(table->usage().nodes_free, nodes_free);
    ASSERT_EQ(table->detach(8, 1), Status::kOk);  // the whole tree at once
    wait();
    EXPECT_EQ(table->usage().nodes_used, 0u);
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    EXPECT_EQ(fill(), first);
}

TEST_F(TableTest, exhausted_names_the_quota) {
    table = make({.max_domains = 1, .max_mappings = 1});
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    ASSERT_EQ(map(0, kPage), Status::kOk);
    EXPECT_EQ(map(kPage, kPage), Status::kNoMem);
    EXPECT_EQ(table->exhausted(), Quota::kMappings);
    EXPECT_EQ(table->attach(16, 2, false), Status::kNoMem);
    EXPECT_EQ(table->exhausted(), Quota::kDomains);
}

TEST_F(TableTest, reserved_regions_hold_while_their_endpoint_is_attached) {
    table = make();
    const Reserved a[] = {{range(kHuge, kPage), true}};
    const Reserved b[] = {{range(3 * kHuge, kHuge), false}, {range(kGiant, kPage), true}};
    ASSERT_TRUE(table->add_endpoint(24, a));
    ASSERT_TRUE(table->add_endpoint(32, b));
    ASSERT_TRUE(table->add_endpoint(40, b));
    ASSERT_EQ(table->attach(24, 1, false), Status::kOk);
    EXPECT_EQ(map(kHuge, kPage), Status::kInval);
    EXPECT_EQ(map(3 * kHuge, kHuge), Status::kOk);
    EXPECT_EQ(table->attach(32, 1, false), Status::kUnsupp);
    ASSERT_EQ(unmap(3 * kHuge, kHuge), Status::kOk);
    EXPECT_EQ(table->attach(32, 1, false), Status::kOk);
    EXPECT_EQ(table->attach(40, 1, false), Status::kOk);
    EXPECT_EQ(map(3 * kHuge + kPage, kPage), Status::kInval);
    ASSERT_EQ(table->detach(32, 1), Status::kOk);
    EXPECT_EQ(map(3 * kHuge + kPage, kPage), Status::kInval) << "40 has the same";
    ASSERT_EQ(table->detach(40, 1), Status::kOk);
    EXPECT_EQ(map(3 * kHuge + kPage, kPage), Status::kOk);
    EXPECT_EQ(map(kHuge, kPage), Status::kInval);
}

TEST_F(TableTest, reserved_regions_beyond_the_table_are_refused_and_equal_ones_kept_once) {
    table = make({.max_regions = 2});
    const Reserved two[] = {{range(0, kPage), true}, {range(kHuge, kPage), true}};
    const Reserved other[] = {{range(kHuge, kPage), false}};
    EXPECT_TRUE(table->add_endpoint(24, two));
    EXPECT_TRUE(table->add_endpoint(32, two));
    const auto added = table->add_endpoint(40, other);
    ASSERT_FALSE(added);
    EXPECT_NE(added.error().message.find("room for 2"), std::string::npos) << added.error().message;
    EXPECT_FALSE(table->has_endpoint(40));
}

TEST_F(TableTest, large_mappings_use_large_leaves) {
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    ASSERT_EQ(map(0, uint64_t{512} * kGiant), Status::kOk);
    EXPECT_EQ(table->usage().nodes_used, 1u);
    ASSERT_EQ(map(uint64_t{512} * kGiant, kGiant), Status::kOk);
    EXPECT_EQ(table->usage().nodes_used, 2u);
    ASSERT_EQ(map(uint64_t{600} * kGiant + kHuge, kHuge), Status::kOk);
    EXPECT_EQ(table->usage().nodes_used, 3u);
}

TEST_F(TableTest, input_up_to_the_last_address_works) {
    table = make({.input = {{0}, {~uint64_t{0}}}});
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    EXPECT_EQ(map(-kPage, kPage), Status::kOk);
    EXPECT_EQ(map(0, kPage), Status::kOk);
    EXPECT_EQ(unmap(-kPage, kPage), Status::kOk);
    EXPECT_EQ(table->map(1, {{kGiant}, {~uint64_t{0}}}, {0}, Access::kRead), Status::kOk);
    EXPECT_EQ(table->unmap(1, {{0}, {~uint64_t{0}}}), Status::kOk);
    EXPECT_EQ(table->usage().mappings, 0u);
}

TEST_F(TableTest, granule_of_64_kib_is_the_alignment) {
    table = make({.granule_lg2 = 16});
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    EXPECT_EQ(map(0, kPage), Status::kRange);
    EXPECT_EQ(map(0x10000, 0x10000), Status::kOk);
    EXPECT_EQ(unmap(0x10000, 0x10000), Status::kOk);
}

TEST_F(TableTest, mapping_quota_is_nomem_until_something_is_unmapped) {
    table = make({.max_mappings = 2});
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    ASSERT_EQ(map(0, kPage), Status::kOk);
    ASSERT_EQ(map(kPage, kPage), Status::kOk);
    EXPECT_EQ(map(2 * kPage, kPage), Status::kNoMem);
    ASSERT_EQ(unmap(0, kPage), Status::kOk);
    EXPECT_EQ(map(2 * kPage, kPage), Status::kOk);
}

TEST_F(TableTest, exhausted_arena_is_nomem_and_changes_nothing) {
    table = make({.max_endpoints = 2, .max_domains = 1, .arena_bytes = 18 * kPage});
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    uint64_t mapped = 0;
    while (map(mapped * kGiant, kPage) == Status::kOk) ++mapped;
    EXPECT_GT(mapped, 2u);
    EXPECT_EQ(map(mapped * kGiant, kPage), Status::kNoMem);
    EXPECT_EQ(table->self_check(), "");
    EXPECT_EQ(map(kPage, kPage), Status::kOk);  // needs no node
    ASSERT_EQ(unmap(0, kGiant), Status::kOk);
    wait();
    EXPECT_EQ(map(mapped * kGiant, kPage), Status::kOk);
}

TEST_F(TableTest, attach_checks_endpoint_kind_and_quota) {
    table = make({.max_domains = 1});
    EXPECT_EQ(table->attach(9, 1, false), Status::kNoEnt);
    EXPECT_EQ(table->attach(8, 1, false), Status::kOk);
    EXPECT_EQ(table->attach(16, 1, true), Status::kInval);
    EXPECT_EQ(table->attach(16, 2, false), Status::kNoMem);
    EXPECT_EQ(table->attach(16, 1, false), Status::kOk);
    EXPECT_EQ(table->attach(8, 2, false), Status::kNoMem);
    EXPECT_EQ(table->detach(16, 1), Status::kOk);
    EXPECT_EQ(table->attach(8, 2, true), Status::kOk);  // moving it ends domain 1
    EXPECT_EQ(table->usage().domains, 1u);
}

TEST_F(TableTest, domain_ends_with_its_last_endpoint) {
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    ASSERT_EQ(table->attach(16, 1, false), Status::kOk);
    ASSERT_EQ(map(0, kPage), Status::kOk);
    ASSERT_EQ(table->detach(8, 1), Status::kOk);
    EXPECT_EQ(table->detach(8, 1), Status::kInval);
    EXPECT_EQ(table->usage().mappings, 1u);
    ASSERT_EQ(table->detach(16, 1), Status::kOk);
    EXPECT_EQ(table->usage().domains, 0u);
    EXPECT_EQ(table->usage().mappings, 0u);
    EXPECT_EQ(map(kPage, kPage), Status::kNoEnt);
    EXPECT_EQ(unmap(0, kPage), Status::kNoEnt);
    wait();
    EXPECT_EQ(table->usage().nodes_used, 0u);
}

TEST_F(TableTest, bypass_domain_cannot_be_mapped) {
    ASSERT_EQ(table->attach(8, 1, true), Status::kOk);
    EXPECT_EQ(map(0, kPage), Status::kInval);
    EXPECT_EQ(unmap(0, kPage), Status::kInval);
}

TEST_F(TableTest, reset_detaches_everything_and_keeps_bypass) {
    table->set_bypass(true);
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    ASSERT_EQ(table->attach(16, 2, false), Status::kOk);
    ASSERT_EQ(map(0, kPage), Status::kOk);
    table->reset();
    EXPECT_TRUE(table->dirty());
    EXPECT_EQ(table->usage().domains, 0u);
    EXPECT_TRUE(table->bypass());
    EXPECT_EQ(table->endpoint(8)->route.load(), route::kBypass);
    wait();
    EXPECT_EQ(table->usage().nodes_used, 0u);
}

TEST_F(TableTest, only_what_takes_from_readers_is_dirty) {
    EXPECT_FALSE(table->dirty());
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    EXPECT_TRUE(table->dirty());
    wait();
    ASSERT_EQ(map(0, kPage), Status::kOk);
    ASSERT_EQ(unmap(kHuge, kHuge), Status::kOk);  // nothing there
    EXPECT_FALSE(table->dirty());
    ASSERT_EQ(unmap(0, kPage), Status::kOk);
    EXPECT_TRUE(table->dirty());
}

TEST_F(TableTest, nodes_wait_for_readers) {
    ASSERT_EQ(table->attach(8, 1, false), Status::kOk);
    ASSERT_EQ(map(0, kPage), Status::kOk);
    wait();
    auto section = std::move(*table->readers().take());
    section.enter();
    ASSERT_EQ(unmap(0, kPage), Status::kOk);
    const auto token = table->start_grace();
    EXPECT_FALSE(table->grace_over(token));
    EXPECT_EQ(table->usage().nodes_used, 4u);
    EXPECT_NE(table->usage().trees_waiting, 0u);
    section.leave();
    EXPECT_TRUE(table->grace_over(token));
    EXPECT_EQ(table->usage().nodes_used, 1u);
}

TEST_F(TableTest, section_entered_after_the_start_is_not_waited_for) {
    auto section = std::move(*table->readers().take());
    const auto token = table->start_grace();
    section.enter();
    EXPECT_TRUE(table->grace_over(token));
    section.leave();
}

TEST(Geometry, impossible_values_are_refused_with_the_value_and_the_limit) {
    const auto message = [](const Geometry& g) {
        const auto t = Table::create(g);
        return t ? std::string("accepted") : t.error().message;
    };
    EXPECT_NE(message({.granule_lg2 = 11}).find("2^11"), std::string::npos);
    EXPECT_NE(message({.max_endpoints = 0}).find("max_endpoints 0"), std::string::npos);
    EXPECT_NE(message({.max_domains = 0}).find("max_domains 0"), std::string::npos);
    EXPECT_NE(message({.arena_bytes = 4096}).find("at least"), std::string::npos);
}

TEST(Readers, slots_run_out_with_a_remedy) {
    AtomicWord token{0};
    Readers readers(1, token);
    {
        const auto slot = readers.take();
        ASSERT_TRUE(slot);
        const auto second = readers.take();
        ASSERT_FALSE(second);
        EXPECT_NE(second.error().message.find("max_readers"), std::string::npos);
    }
    EXPECT_TRUE(readers.take());
}

}  // namespace
}  // namespace viommu::table
