// SPDX-License-Identifier: BSD-3-Clause
/// The C ABI, through the shared library, against a served table in the same process.
#include <viommu.h>


#include "served.hh"

namespace viommu::share {
namespace {

constexpr unsigned kTimeoutMs = 20'000;

struct Library : testing::Test {
    Library() : client(viommu_open(served.directory.socket().c_str(), kTimeoutMs)) {
        EXPECT_NE(client, nullptr) << viommu_error();
        reader = viommu_reader_create(client, kEndpoint);
        EXPECT_NE(reader, nullptr) << viommu_error();
    }
    ~Library() override {
        viommu_reader_destroy(reader);
        viommu_close(client);
    }
    /// In a section of its own.
    viommu_run translate(uint64_t iova, uint64_t bytes, unsigned access = VIOMMU_READ) {
        viommu_enter(reader);
        const viommu_run run = viommu_translate(reader, iova, bytes, access);
        viommu_leave(reader);
        return run;
    }

    Served served;
    viommu_client* client;
    viommu_reader* reader;
};

TEST_F(Library, translation_tells_address_length_and_rights) {
    EXPECT_STREQ(viommu_guest(client), "vm0");
    ASSERT_EQ(served.map(1, 0x40000000), Status::kOk);
    ASSERT_EQ(served.map(2, 0x40001000), Status::kOk);
    const viommu_run run = translate(0x1ff8, 64, VIOMMU_READ | VIOMMU_WRITE);
    EXPECT_EQ(run.gpa, 0x40000ff8u);
    EXPECT_EQ(viommu_run_bytes(run), 64u) << "it crosses into the mapping that continues it";
    EXPECT_EQ(viommu_run_rights(run), unsigned(VIOMMU_READ | VIOMMU_WRITE));
    EXPECT_FALSE(viommu_run_is_mmio(run));
    EXPECT_EQ(viommu_run_bytes(translate(0x2ff0, 64)), 16u) << "it ends where the mapping does";
}

TEST_F(Library, rights_of_a_mapping_decide) {
    ASSERT_EQ(served.table->map(1, {{0x5000}, {0x5fff}}, {0x7000}, Access::kRead), Status::kOk);
    EXPECT_EQ(viommu_run_bytes(translate(0x5000, 8, VIOMMU_READ)), 8u);
    const viommu_run refused = translate(0x5000, 8, VIOMMU_WRITE);
    EXPECT_EQ(viommu_run_bytes(refused), 0u);
    EXPECT_EQ(viommu_run_fault(refused), unsigned(VIOMMU_FAULT_MAPPING));
    ASSERT_EQ(served.table->map(1, {{0x6000}, {0x6fff}}, {0xfee00000},
                                Access::kWrite | Access::kMmio),
              Status::kOk);
    const viommu_run doorbell = translate(0x6000, 4, VIOMMU_WRITE);
    EXPECT_TRUE(viommu_run_is_mmio(doorbell));
    EXPECT_EQ(viommu_run_rights(doorbell), unsigned(VIOMMU_WRITE | VIOMMU_MMIO));
}

TEST_F(Library, detached_endpoint_is_a_domain_fault) {
    ASSERT_EQ(served.table->detach(kEndpoint, 1), Status::kOk);
    const viommu_run run = translate(0x1000, 8);
    EXPECT_EQ(viommu_run_bytes(run), 0u);
    EXPECT_EQ(viommu_run_fault(run), unsigned(VIOMMU_FAULT_DOMAIN));
}

TEST_F(Library, burst_answers_as_single_translations_do) {
    constexpr unsigned kCount = 100;
    for (uint64_t page = 0; page < kCount; page += 3)
        ASSERT_EQ(served.map(page + 1, (page * 7) << 12), Status::kOk);
    viommu_lookup in[kCount];
    viommu_run out[kCount];
    for (unsigned i = 0; i < kCount; ++i) in[i] = {(i + 1) * kPage + i, 1 + i};
    viommu_enter(reader);
    unsigned faults = 0;
    EXPECT_EQ(viommu_translate_burst(reader, in, out, kCount, VIOMMU_WRITE), 66u);
    for (unsigned i = 0; i < kCount; ++i) {
        const viommu_run one = viommu_translate(reader, in[i].iova, in[i].bytes, VIOMMU_WRITE);
        EXPECT_EQ(out[i].gpa, one.gpa) << i;
        EXPECT_EQ(out[i].length, one.length) << i;
        faults += viommu_run_bytes(one) == 0;
    }
    viommu_leave(reader);
    EXPECT_EQ(faults, 66u);
}

TEST_F(Library, unmap_waits_for_a_section_and_no_longer) {
    ASSERT_EQ(served.map(1, 0x40000000), Status::kOk);
    viommu_enter(reader);
    ASSERT_EQ(viommu_run_bytes(viommu_translate(reader, 0x1000, 8, VIOMMU_READ)), 8u);
    ASSERT_EQ(served.unmap(1), Status::kOk);
    const auto token = served.table->start_grace();
    for (int i = 0; i < 1000; ++i) ASSERT_FALSE(served.table->grace_over(token));
    viommu_leave(reader);
    EXPECT_TRUE(served.table->grace_over(token));
    EXPECT_EQ(viommu_run_bytes(translate(0x1000, 8)), 0u);
}

TEST_F(Library, generation_moves_when_something_is_taken_away) {
    ASSERT_EQ(served.map(1, 0x40000000), Status::kOk);
    translate(0x1000, 8);
    const uint64_t before = viommu_generation(reader);
    translate(0x1000, 8);
    EXPECT_EQ(viommu_generation(reader), before);
    ASSERT_EQ(served.unmap(1), Status::kOk);
    ASSERT_TRUE(served.wait_for_readers());
    translate(0x1000, 8);
    EXPECT_NE(viommu_generation(reader), before);
}

TEST_F(Library, fault_that_is_reported_reaches_the_guest) {
    viommu_report(reader, 0xabc000, VIOMMU_WRITE, VIOMMU_FAULT_MAPPING);
    xlate::Fault fault;
    ASSERT_TRUE(eventually([&] { return served.faults.pop(fault); }));
    EXPECT_EQ(fault.address, Iova{0xabc000});
    EXPECT_EQ(fault.endpoint, kEndpoint);
    EXPECT_EQ(fault.access, Access::kWrite);
    EXPECT_EQ(fault.reason, xlate::FaultReason::kMapping);
    EXPECT_EQ(viommu_lost_faults(client), 0u);
}

TEST_F(Library, faults_beyond_the_rate_are_counted_as_lost) {
    for (int i = 0; i < 3000; ++i) viommu_report(reader, 0x1000, VIOMMU_READ, 0);
    EXPECT_GT(viommu_lost_faults(client), 0u);
}

TEST_F(Library, dead_daemon_is_noticed_and_the_last_table_stays) {
    ASSERT_EQ(served.map(1, 0x40000000), Status::kOk);
    EXPECT_EQ(viommu_connected(client), 1);
    served.stop();
    EXPECT_EQ(viommu_connected(client), 0);
    EXPECT_EQ(translate(0x1000, 8).gpa, 0x40000000u);
}

TEST_F(Library, readers_outlive_a_connection_that_is_closed_first) {
    ASSERT_EQ(served.map(1, 0x40000000), Status::kOk);
    viommu_close(client);
    EXPECT_EQ(translate(0x1000, 8).gpa, 0x40000000u);
    viommu_reader_destroy(reader);
    reader = nullptr;
    client = nullptr;
    EXPECT_TRUE(eventually([&] { return served.server->processes() == 0; }));
}

TEST_F(Library, errors_are_null_with_a_text_that_names_the_thing) {
    EXPECT_EQ(viommu_reader_create(client, 0x99), nullptr);
    EXPECT_NE(std::string(viommu_error()).find("0x99"), std::string::npos) << viommu_error();
    EXPECT_EQ(viommu_open("/nonexistent/readers.sock", 10), nullptr);
    EXPECT_NE(std::string(viommu_error()).find("/nonexistent/readers.sock"), std::string::npos);
    EXPECT_EQ(viommu_open(nullptr, 10), nullptr);
    EXPECT_EQ(viommu_open(std::string(100'000, 'x').c_str(), 10), nullptr)
        << "the text is longer than its place";
    EXPECT_LT(std::string(viommu_error()).size(), 512u);
    std::thread([] { EXPECT_STREQ(viommu_error(), "no error"); }).join();
    viommu_close(nullptr);
    viommu_reader_destroy(nullptr);
}

TEST_F(Library, reader_65_of_a_process_is_refused) {
    std::vector<viommu_reader*> more;
    while (auto* r = viommu_reader_create(client, kEndpoint)) {
        more.push_back(r);
        ASSERT_LE(more.size(), 64u);
    }
    EXPECT_EQ(more.size(), 63u);
    EXPECT_NE(std::string(viommu_error()).find("64"), std::string::npos) << viommu_error();
    for (auto* r : more) viommu_reader_destroy(r);
    viommu_reader* again = viommu_reader_create(client, kEndpoint);
    EXPECT_NE(again, nullptr);
    viommu_reader_destroy(again);
}

}  // namespace
}  // namespace viommu::share
