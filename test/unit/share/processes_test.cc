// SPDX-License-Identifier: BSD-3-Clause
/// Reader processes that die, stop, and write nonsense.
#include "child.hh"
#include "served.hh"

namespace viommu::share {
namespace {

struct Processes : testing::Test {
    Child start(Served& s, const char* mode, unsigned number = 0) {
        Child child(mode, s.directory.socket(), kEndpoint, shared, number);
        EXPECT_TRUE(eventually([&] { return shared.memory->tallies[number].there.load() == 1; }));
        return child;
    }
    SharedMapping shared;
};

TEST_F(Processes, that_is_killed_inside_a_section_holds_up_nothing) {
    Served s({.stall_bound = 60s});
    Child child = start(s, "spin");
    const auto token = s.table->start_grace();
    EXPECT_FALSE(s.table->grace_over(token));
    child.kill();
    EXPECT_TRUE(s.wait_for_readers());
    EXPECT_TRUE(eventually([&] { return s.server->stats().left.was() == 1; }));
    EXPECT_EQ(s.server->processes(), 0u);
}

TEST_F(Processes, that_stops_inside_a_section_is_killed_after_the_bound) {
    Served s({.stall_bound = 100ms});
    Child child = start(s, "stop");
    const auto waited = s.wait_for_readers();
    ASSERT_TRUE(waited);
    EXPECT_GE(*waited, 100ms);
    EXPECT_LE(*waited, 5s);  // 100 ms + a tick, on a busy machine
    std::optional<int> signal;
    EXPECT_TRUE(eventually([&] { return (signal = child.ended_by()).has_value(); }));
    EXPECT_EQ(signal, SIGKILL);
    EXPECT_EQ(s.server->stats().killed.was(), 1u);
    EXPECT_EQ(s.server->stats().left.was(), 0u);
    EXPECT_NE(s.log().find("(reader-process)"), std::string::npos) << s.log();
    EXPECT_NE(s.log().find("raise reader_stall_ms"), std::string::npos) << s.log();
}

TEST_F(Processes, that_is_gone_takes_none_with_it_that_comes_to_its_place) {
    Served s;
    Child first = start(s, "spin");
    // Whoever forks keeps what the server has of the first alive, after the server has closed it.
    const pid_t keeper = fork();
    if (keeper == 0)
        for (;;) pause();
    first.kill();
    ASSERT_TRUE(eventually([&] { return s.server->processes() == 0; }));
    const auto client = Client::connect(s.directory.socket());
    ASSERT_TRUE(client) << client.error().message;
    EXPECT_EQ(s.table->readers().pages().live(), 1u);
    std::this_thread::sleep_for(100ms);
    EXPECT_TRUE(client->connected());
    EXPECT_EQ(s.server->processes(), 1u);
    kill(keeper, SIGKILL);
    waitpid(keeper, nullptr, 0);
}

TEST_F(Processes, that_spins_inside_a_section_is_killed_too) {
    Served s({.stall_bound = 50ms});
    Child child = start(s, "spin");
    ASSERT_TRUE(s.wait_for_readers());
    EXPECT_EQ(s.server->stats().killed.was(), 1u);
}

TEST_F(Processes, that_stalls_is_only_disconnected_where_that_is_configured) {
    Served s({.stall_bound = 50ms, .stalled = StalledReaders::kDisconnect});
    Child child = start(s, "spin");
    ASSERT_TRUE(s.wait_for_readers());
    EXPECT_EQ(s.server->stats().killed.was(), 0u);
    EXPECT_EQ(s.server->stats().disconnected.was(), 1u);
    const auto before = shared.memory->tallies[0].sections.load();
    EXPECT_TRUE(eventually([&] { return shared.memory->tallies[0].sections.load() != before; }));
    EXPECT_NE(s.log().find("MAY OUTLIVE ITS UNMAP"), std::string::npos) << s.log();
}

TEST_F(Processes, that_writes_nonsense_is_killed_or_harmless) {
    Served s({.stall_bound = 50ms});
    Child child = start(s, "nonsense");
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(s.wait_for_readers());
    // Whoever reads beside it is protected as ever.
    auto client = std::move(*Client::connect(s.directory.socket()));
    auto reader = std::move(*client.reader(kEndpoint));
    reader.enter();
    const auto token = s.table->start_grace();
    for (int i = 0; i < 100; ++i) EXPECT_FALSE(s.table->grace_over(token));
    reader.leave();
    EXPECT_TRUE(eventually([&] { return s.table->grace_over(token); }));
}

TEST_F(Processes, as_many_as_there_are_places_read_at_once) {
    Served s({.stall_bound = 60s});
    for (uint64_t slot = 0; slot < kSlots; ++slot) {
        ASSERT_EQ(s.table->map(1, {{iova_of(slot)}, {iova_of(slot) + kPage - 1}}, {slot * kPage},
                               Access::kReadWrite),
                  Status::kOk);
        shared.memory->pages[slot].word.store(slot);
    }
    std::vector<Child> children;
    for (unsigned i = 0; i < kReaders; ++i)
        children.emplace_back("sometimes", s.directory.socket(), kEndpoint, shared, i);
    for (auto& tally : shared.memory->tallies)
        ASSERT_TRUE(eventually([&] { return tally.sections.load() > 0; }));
    EXPECT_EQ(s.server->processes(), 64u);
    EXPECT_FALSE(Client::connect(s.directory.socket()));
    ASSERT_EQ(s.table->unmap(1, {{0}, {(uint64_t{1} << 48) - 1}}), Status::kOk);
    ASSERT_TRUE(s.wait_for_readers(60s));
    for (uint64_t slot = 0; slot < kSlots; ++slot) shared.memory->pages[slot].word.store(kPoison);
    for (Child& child : children) child.kill();
    EXPECT_TRUE(eventually([&] { return s.server->processes() == 0; }));
    for (auto& tally : shared.memory->tallies) EXPECT_EQ(tally.violations.load(), 0u);
}

}  // namespace
}  // namespace viommu::share
