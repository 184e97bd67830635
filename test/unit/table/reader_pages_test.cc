// SPDX-License-Identifier: BSD-3-Clause
/// Sections of other processes, with the process's side of the page in this one.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "viommu_table.hh"

namespace viommu::table {
namespace {

/// What a reader process has of a page: its own mapping.
class Process final : public SlotOwner {
  public:
    explicit Process(Readers& readers) : readers_(readers), place_(*readers.pages().add()) {
        void* at = mmap(nullptr, sizeof(ReaderPage), PROT_READ | PROT_WRITE, MAP_SHARED, fd(), 0);
        EXPECT_NE(at, MAP_FAILED);
        page = static_cast<ReaderPage*>(at);
    }
    ~Process() { munmap(page, sizeof *page); }
    Section take(unsigned slot, const AtomicWord& token) {
        page->taken().fetch_or(uint64_t{1} << slot);
        return Section(token, *page, slot, *this);
    }
    void give_back(unsigned slot) noexcept override {
        page->taken().fetch_and(~(uint64_t{1} << slot));
    }
    void die() { readers_.pages().remove(place_.process); }
    unsigned number() const { return place_.process; }
    int fd() const { return place_.page.get(); }

    ReaderPage* page;

  private:
    Readers& readers_;
    ReaderPages::Place place_;
};

struct ReaderPagesTest : testing::Test {
    AtomicWord token{0};
    Readers readers{4, token};
};

TEST_F(ReaderPagesTest, token_of_both_kinds_of_readers_is_one) {
    const auto before = token.load();
    EXPECT_EQ(readers.start_grace(), before + 1);
    EXPECT_EQ(readers.token(), before + 1);
}

TEST_F(ReaderPagesTest, section_that_is_open_at_the_start_is_waited_for) {
    Process process(readers);
    Section section = process.take(63, token);
    section.enter();
    const auto grace = readers.start_grace();
    EXPECT_FALSE(readers.grace_over(grace));
    EXPECT_EQ(readers.pages().holding_up(), 1u);
    EXPECT_TRUE(readers.pages().inside(process.number(), grace));
    section.leave();
    EXPECT_FALSE(readers.pages().inside(process.number(), grace));
    EXPECT_TRUE(readers.grace_over(grace));
    EXPECT_EQ(readers.pages().holding_up(), 0u);
}

TEST_F(ReaderPagesTest, section_entered_after_the_start_is_not_waited_for) {
    Process process(readers);
    Section section = process.take(0, token);
    const auto grace = readers.start_grace();
    section.enter();
    EXPECT_TRUE(readers.grace_over(grace));
    EXPECT_FALSE(readers.grace_over(readers.start_grace()));
    section.leave();
}

TEST_F(ReaderPagesTest, own_threads_and_processes_are_waited_for_alike) {
    Process process(readers);
    Section there = process.take(0, token);
    Section here = std::move(*readers.take());
    there.enter();
    here.enter();
    const auto grace = readers.start_grace();
    there.leave();
    EXPECT_FALSE(readers.grace_over(grace));
    here.leave();
    EXPECT_TRUE(readers.grace_over(grace));
}

TEST_F(ReaderPagesTest, process_that_goes_in_a_section_is_not_waited_for) {
    Process process(readers), other(readers);
    Section section = process.take(0, token);
    section.enter();
    const auto grace = readers.start_grace();
    EXPECT_FALSE(readers.grace_over(grace));
    EXPECT_EQ(readers.pages().holding_up(), uint64_t{1} << process.number());
    process.die();
    EXPECT_TRUE(readers.grace_over(grace));
    EXPECT_EQ(readers.pages().holding_up(), 0u);
    EXPECT_EQ(readers.pages().live(), uint64_t{1} << other.number());
}

TEST_F(ReaderPagesTest, place_of_a_process_that_went_begins_with_zeros) {
    {
        Process first(readers);
        Section section = first.take(5, token);
        section.enter();
        first.die();
        section.leave();
    }
    Process second(readers);
    EXPECT_EQ(second.number(), 0u);
    EXPECT_EQ(readers.pages().slots_taken(0), 0u);
    EXPECT_TRUE(readers.grace_over(readers.start_grace()));
}

TEST_F(ReaderPagesTest, slot_once_seen_outside_is_not_waited_for_again) {
    Process process(readers);
    Section first = process.take(0, token), second = process.take(1, token);
    first.enter();
    const auto old = token.load();
    const auto grace = readers.start_grace();
    EXPECT_FALSE(readers.grace_over(grace));  // the second slot has been seen outside
    process.page->slots[1].count.store(old);  // nonsense: an old token
    first.leave();
    EXPECT_TRUE(readers.grace_over(grace));
    process.page->slots[1].count.store(0);
}

TEST_F(ReaderPagesTest, nonsense_in_a_page_holds_up_no_longer_than_it_stands) {
    Process process(readers);
    auto* words = reinterpret_cast<AtomicWord*>(process.page);
    const size_t n = sizeof(ReaderPage) / sizeof *words;
    for (const uint64_t nonsense :
         {~uint64_t{0}, uint64_t{1} << 63, uint64_t{0x5555555555555555}}) {
        for (size_t i = 0; i < n; ++i) words[i].store(nonsense);
        EXPECT_TRUE(readers.grace_over(readers.start_grace())) << nonsense;
    }
    for (size_t i = 0; i < n; ++i) words[i].store(1);  // in a section for ever
    EXPECT_FALSE(readers.grace_over(readers.start_grace()));
    process.die();
    EXPECT_TRUE(readers.grace_over(readers.start_grace()));
}

TEST_F(ReaderPagesTest, process_that_is_one_too_many_is_refused) {
    std::vector<std::unique_ptr<Process>> all;
    for (unsigned i = 0; i < ReaderPages::kMaxProcesses; ++i)
        all.push_back(std::make_unique<Process>(readers));
    const auto more = readers.pages().add();
    ASSERT_FALSE(more);
    EXPECT_NE(more.error().message.find("all 64 places"), std::string::npos);
    Section section = all[63]->take(63, token);
    section.enter();
    EXPECT_FALSE(readers.grace_over(readers.start_grace()));
    section.leave();
    all[17]->die();
    const auto again = readers.pages().add();
    ASSERT_TRUE(again);
    EXPECT_EQ(again->process, 17u);
}

TEST_F(ReaderPagesTest, page_cannot_be_made_smaller_or_larger) {
    Process process(readers);
    EXPECT_EQ(ftruncate(process.fd(), 0), -1);
    EXPECT_EQ(ftruncate(process.fd(), 8192), -1);
    EXPECT_EQ(fcntl(process.fd(), F_ADD_SEALS, F_SEAL_WRITE), -1);
}

}  // namespace
}  // namespace viommu::table
