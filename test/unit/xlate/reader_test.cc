// SPDX-License-Identifier: BSD-3-Clause
#include "viommu_xlate.hh"

#include <gtest/gtest.h>

namespace viommu::xlate {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kHuge = uint64_t{2} << 20;
constexpr EndpointId kEndpoint = 0x20;

struct ReaderTest : testing::Test {
    Status map(uint64_t iova, uint64_t bytes, uint64_t gpa, Access rights = Access::kReadWrite) {
        return table->map(1, *IovaRange::from_length({iova}, bytes), {gpa}, rights);
    }
    Translation at(uint64_t iova, uint64_t bytes, Access need = Access::kRead) {
        reader.enter();
        const auto t = reader.translate({iova}, bytes, need);
        reader.leave();
        return t;
    }

    std::unique_ptr<table::Table> table = std::move(*table::Table::create({}));
    FaultQueue faults{3};
    Reader reader = make();

    Reader make() {
        EXPECT_TRUE(table->add_endpoint(kEndpoint + 1));
        EXPECT_TRUE(table->add_endpoint(kEndpoint));
        EXPECT_EQ(table->attach(kEndpoint, 1, false), Status::kOk);
        return std::move(*Reader::create(*table, faults, kEndpoint));
    }
};

TEST_F(ReaderTest, translation_ends_where_contiguity_ends) {
    ASSERT_EQ(map(0x10000, kPage, 0x50000), Status::kOk);
    ASSERT_EQ(map(0x11000, kPage, 0x51000), Status::kOk);
    ASSERT_EQ(map(0x12000, kPage, 0x90000), Status::kOk);
    EXPECT_EQ(at(0x10010, 16).gpa(), Gpa{0x50010});
    EXPECT_EQ(at(0x10010, 16).bytes(), 16u);
    EXPECT_EQ(at(0x10800, 100000).bytes(), 2 * kPage - 0x800);
    EXPECT_EQ(at(0x12800, 100000).gpa(), Gpa{0x90800});
    EXPECT_EQ(at(0x12800, 100000).bytes(), 0x800u);
}

TEST_F(ReaderTest, translation_crosses_leaves_of_different_sizes) {
    ASSERT_EQ(map(kHuge - kPage, 2 * kHuge + 2 * kPage, 0x80000000 - kPage), Status::kOk);
    const auto t = at(kHuge - kPage + 5, 4 * kHuge);
    EXPECT_EQ(t.gpa(), Gpa{0x80000000 - kPage + 5});
    EXPECT_EQ(t.bytes(), 2 * kHuge + 2 * kPage - 5);
}

// 5.13.6.5-D6
TEST_F(ReaderTest, rights_are_checked_on_every_page) {
    ASSERT_EQ(map(0x10000, kPage, 0x50000, Access::kReadWrite), Status::kOk);
    ASSERT_EQ(map(0x11000, kPage, 0x51000, Access::kRead), Status::kOk);
    ASSERT_EQ(map(0x12000, kPage, 0x52000, Access::kWrite), Status::kOk);
    EXPECT_EQ(at(0x10000, 3 * kPage, Access::kRead).bytes(), 2 * kPage);
    EXPECT_EQ(at(0x10000, 3 * kPage, Access::kWrite).bytes(), kPage);
    EXPECT_FALSE(at(0x11000, 1, Access::kWrite));
    EXPECT_EQ(at(0x11000, 1, Access::kWrite).fault(), FaultReason::kMapping);
    EXPECT_FALSE(at(0x12000, 1, Access::kRead));
    EXPECT_TRUE(at(0x12000, 1, Access::kWrite));
    EXPECT_FALSE(at(0x12000, 1, Access::kReadWrite));
}

TEST_F(ReaderTest, mapping_without_rights_allows_nothing) {
    ASSERT_EQ(map(0x10000, kPage, 0x50000, Access::kNone), Status::kOk);
    EXPECT_FALSE(at(0x10000, 1, Access::kRead));
    EXPECT_FALSE(at(0x10000, 1, Access::kWrite));
}

TEST_F(ReaderTest, rights_of_a_run_are_those_of_all_of_it) {
    ASSERT_EQ(map(0x10000, kPage, 0x50000, Access::kReadWrite), Status::kOk);
    ASSERT_EQ(map(0x11000, kPage, 0x51000, Access::kRead), Status::kOk);
    EXPECT_EQ(at(0x10000, kPage).rights(), Access::kReadWrite);
    EXPECT_EQ(at(0x10000, 2 * kPage).bytes(), 2 * kPage);
    EXPECT_EQ(at(0x10000, 2 * kPage).rights(), Access::kRead);
    EXPECT_EQ(at(0x11000, 1).rights(), Access::kRead);
}

// 5.13.6.5-N1
TEST_F(ReaderTest, registers_and_memory_are_never_one_run) {
    const Access registers = Access::kReadWrite | Access::kMmio;
    ASSERT_EQ(map(0x10000, kPage, 0x50000), Status::kOk);
    ASSERT_EQ(map(0x11000, 2 * kPage, 0x51000, registers), Status::kOk);
    ASSERT_EQ(map(0x13000, kPage, 0x53000), Status::kOk);
    EXPECT_EQ(at(0x10000, 4 * kPage).bytes(), kPage);
    EXPECT_FALSE(at(0x10000, 4 * kPage).is_mmio());
    EXPECT_EQ(at(0x11000, 4 * kPage).bytes(), 2 * kPage);
    EXPECT_TRUE(at(0x11000, 4 * kPage).is_mmio());
    EXPECT_EQ(at(0x11000, 8).rights(), registers);
    EXPECT_FALSE(at(0x13000, 8).is_mmio());
}

TEST_F(ReaderTest, next_mapping_goes_through_all_once_and_in_order) {
    const std::vector<Mapping> all = {
        {{{0}, {kPage - 1}}, {0x50000}, Access::kReadWrite},
        {{{kPage}, {3 * kPage - 1}}, {0x51000}, Access::kRead},
        {{{kHuge - kPage}, {4 * kHuge + kPage - 1}}, {0x80000000 - kPage}, Access::kWrite},
        {{{uint64_t{1} << 40}, {(uint64_t{1} << 40) + kPage - 1}},
         {0xfee00000},
         Access::kWrite | Access::kMmio},
        {{{(uint64_t{1} << 48) - kHuge}, {(uint64_t{1} << 48) - 1}}, {0}, Access::kNone}};
    for (const auto& m : all) ASSERT_EQ(map(m.range.first.value, m.range.extent() + 1, m.gpa.value,
                                            m.rights), Status::kOk);
    reader.enter();
    std::vector<Mapping> found;
    for (auto m = reader.next_mapping({0}); m; m = reader.next_mapping(m->range.last + 1))
        found.push_back(*m);
    EXPECT_EQ(found, all);
    for (const uint64_t inside : {kHuge - kPage, kHuge, 2 * kHuge + 5, 4 * kHuge + kPage - 1})
        EXPECT_EQ(reader.next_mapping({inside}), all[2]) << inside;
    EXPECT_EQ(reader.next_mapping({4 * kHuge + kPage}), all[3]);
    EXPECT_FALSE(reader.next_mapping({~uint64_t{0}}));
    reader.leave();
    ASSERT_EQ(table->detach(kEndpoint, 1), Status::kOk);
    reader.enter();
    EXPECT_FALSE(reader.next_mapping({0}));
    reader.leave();
}

TEST_F(ReaderTest, run_longer_than_can_be_told_is_told_in_parts) {
    ASSERT_EQ(table->attach(kEndpoint, 2, true), Status::kOk);
    EXPECT_EQ(at(0, ~uint64_t{0}).bytes(), Translation::kMaxBytes);
    EXPECT_EQ(at(Translation::kMaxBytes, 5).gpa(), Gpa{Translation::kMaxBytes});
}

TEST_F(ReaderTest, address_beyond_the_tree_does_not_alias) {
    ASSERT_EQ(map(0, kPage, 0x50000), Status::kOk);
    EXPECT_FALSE(at(uint64_t{1} << 48, 1));
    EXPECT_FALSE(at(uint64_t{1} << 63, 1));
    EXPECT_EQ(at(uint64_t{1} << 48, 1).fault(), FaultReason::kMapping);
}

TEST_F(ReaderTest, zero_bytes_translate_to_nothing) {
    ASSERT_EQ(map(0, kPage, 0x50000), Status::kOk);
    EXPECT_FALSE(at(0, 0));
}

TEST_F(ReaderTest, unattached_endpoint_is_a_domain_fault_or_the_identity) {
    ASSERT_EQ(table->detach(kEndpoint, 1), Status::kOk);
    EXPECT_FALSE(at(0x1234, 1));
    EXPECT_EQ(at(0x1234, 1).fault(), FaultReason::kDomain);
    table->set_bypass(true);
    EXPECT_EQ(at(0x1234, 77).gpa(), Gpa{0x1234});
    EXPECT_EQ(at(0x1234, 77).bytes(), 77u);
    EXPECT_EQ(at(~uint64_t{0} - 9, 77).bytes(), 10u);
    EXPECT_FALSE(at(0x1234, 0));
    ASSERT_EQ(table->attach(kEndpoint, 1, false), Status::kOk);
    EXPECT_EQ(at(0x1234, 1).fault(), FaultReason::kMapping);
}

// 5.13.6.4-D4
TEST_F(ReaderTest, route_is_that_of_the_section) {
    ASSERT_EQ(map(0, kPage, 0x50000), Status::kOk);
    reader.enter();
    ASSERT_EQ(table->detach(kEndpoint, 1), Status::kOk);
    const auto token = table->start_grace();
    EXPECT_TRUE(reader.translate({0}, 1, Access::kRead));
    EXPECT_FALSE(table->grace_over(token));
    reader.leave();
    EXPECT_TRUE(table->grace_over(token));
    EXPECT_FALSE(at(0, 1));
}

// What is remembered from an earlier section must not be looked for in a tree that is no more.
TEST(Reader, detached_high_in_a_64_bit_range_is_a_domain_fault) {
    auto table = std::move(*table::Table::create({.input = {{0}, {~uint64_t{0}}}}));
    FaultQueue faults;
    ASSERT_TRUE(table->add_endpoint(1));
    auto reader = std::move(*Reader::create(*table, faults, 1));
    for (uint64_t top = 0; top < 128; ++top) {
        const Iova iova{top << 57};
        ASSERT_EQ(table->attach(1, 1, false), Status::kOk);
        ASSERT_EQ(table->map(1, *IovaRange::from_length(iova, 4096), {0x5000}, Access::kRead),
                  Status::kOk);
        reader.enter();
        EXPECT_EQ(reader.translate(iova, 8, Access::kRead).gpa(), Gpa{0x5000});
        reader.leave();
        ASSERT_EQ(table->detach(1, 1), Status::kOk);
        ASSERT_TRUE(table->grace_over(table->start_grace()));
        reader.enter();
        const auto t = reader.translate(iova, 8, Access::kRead);
        reader.leave();
        EXPECT_FALSE(t);
        EXPECT_EQ(t.fault(), FaultReason::kDomain);
    }
}

TEST_F(ReaderTest, generation_moves_when_something_is_taken_away) {
    at(0, 1);
    const auto before = reader.generation();
    ASSERT_EQ(map(0, kPage, 0x50000), Status::kOk);
    at(0, 1);
    EXPECT_EQ(reader.generation(), before);
    ASSERT_EQ(table->unmap(1, {{0}, {kPage - 1}}), Status::kOk);
    table->grace_over(table->start_grace());
    at(0, 1);
    EXPECT_NE(reader.generation(), before);
}

TEST_F(ReaderTest, faults_arrive_in_order_and_the_lost_are_counted) {
    for (uint64_t i = 0; i < 5; ++i)
        reader.report({i}, Access::kWrite, FaultReason::kMapping);
    EXPECT_EQ(reader.lost_faults(), 2u);
    Fault f;
    for (uint64_t i = 0; i < 3; ++i) {
        ASSERT_TRUE(faults.pop(f));
        EXPECT_EQ(f.address, Iova{i});
        EXPECT_EQ(f.endpoint, kEndpoint);
        EXPECT_EQ(f.access, Access::kWrite);
    }
    EXPECT_FALSE(faults.pop(f));
    EXPECT_TRUE(faults.was_empty());
}

TEST_F(ReaderTest, unknown_endpoint_is_an_error_with_a_remedy) {
    const auto r = Reader::create(*table, faults, 0x999);
    ASSERT_FALSE(r);
    EXPECT_NE(r.error().message.find("0x999"), std::string::npos);
}

}  // namespace
}  // namespace viommu::xlate
