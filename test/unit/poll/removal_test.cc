// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <new>

#include "running_poller.hh"

namespace viommu::poll::test {
namespace {

/// A Probe whose memory is gone after its life: a poller that still knows it crashes.
class MappedProbe {
  public:
    MappedProbe()
        : page_(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
          probe_(new (page_) Probe) {}
    ~MappedProbe() {
        probe_->~Probe();
        munmap(page_, kBytes);
    }
    MappedProbe(const MappedProbe&) = delete;
    MappedProbe& operator=(const MappedProbe&) = delete;
    Probe& operator*() { return *probe_; }
    Probe* operator->() { return probe_; }

  private:
    static constexpr size_t kBytes = 4096;
    static_assert(sizeof(Probe) <= kBytes);
    void* page_;
    Probe* probe_;
};

class Removal : public testing::TestWithParam<Policy> {};
INSTANTIATE_TEST_SUITE_P(policies, Removal, testing::Values(Policy::kBusy, Policy::kAdaptive),
                         [](const auto& policy) {
                             return policy.param == Policy::kBusy ? "busy" : "adaptive";
                         });

TEST_P(Removal, memory_unmapped_right_afterwards_is_not_touched) {
    RunningPoller p(GetParam());
    Probe stays;
    p.poller.add(stays);
    for (int i = 0; i < 300; ++i) {
        EventFd kick;
        MappedProbe probe;
        probe->fds = {kick.fd()};
        probe->may_sleep = i % 3 != 0;
        p.poller.add(*probe);
        if (i % 2 == 0) {
            ASSERT_TRUE(eventually([&] { return probe->polls > 0; }));
        }
        if (i % 5 == 0) kick.signal();
        p.poller.remove(*probe);
    }
    const uint64_t polls = stays.polls;
    stays.work = 1;
    p.poller.remove(stays);
    p.poller.add(stays);  // wakes it
    EXPECT_TRUE(eventually([&] { return stays.polls > polls; }));
    p.poller.remove(stays);
}

TEST_P(Removal, by_two_threads_at_once_is_serialised) {
    RunningPoller p(GetParam());
    const auto churn = [&] {
        for (int i = 0; i < 100; ++i) {
            MappedProbe probe;
            p.poller.add(*probe);
            p.poller.remove(*probe);
        }
    };
    std::thread other(churn);
    churn();
    other.join();
}

TEST_P(Removal, with_run_not_running_returns_at_once) {
    Poller poller(GetParam());
    Probe probe;
    poller.add(probe);
    poller.remove(probe);
    poller.stop();
    poller.run();
    EXPECT_EQ(0u, probe.polls);
    poller.add(probe);
    poller.remove(probe);
}

TEST_P(Removal, of_what_was_not_added_changes_nothing) {
    RunningPoller p(GetParam());
    Probe added, not_added;
    p.poller.add(added);
    p.poller.remove(not_added);
    EXPECT_TRUE(eventually([&] { return added.polls > 0; }));
    EXPECT_EQ(0u, not_added.polls);
    p.poller.remove(added);
    p.poller.remove(added);
}

TEST_P(Removal, while_run_starts_and_stops_is_safe) {
    Poller poller(GetParam());
    std::atomic<bool> end{false};
    std::thread runner([&] {
        while (!end) poller.run();
    });
    for (int i = 0; i < 200; ++i) {
        MappedProbe probe;
        poller.add(*probe);
        poller.stop();
        poller.remove(*probe);
    }
    end = true;
    poller.stop();
    runner.join();
}

/// The number of a closed fd comes back as another file; its events are none of the poller's.
TEST(RemovalOfFds, closed_number_in_other_use_does_not_wake) {
    RunningPoller p(Policy::kAdaptive);
    Probe probe;
    int number;
    {
        EventFd kick;
        number = kick.fd();
        probe.fds = {number};
        p.poller.add(probe);
        p.poller.remove(probe);
    }
    EventFd reused;
    ASSERT_EQ(number, reused.fd());
    ASSERT_TRUE(p.falls_asleep());
    const uint64_t sleeps = p.poller.stats().sleeps;
    reused.signal();
    std::this_thread::sleep_for(50ms);
    EXPECT_EQ(sleeps, p.poller.stats().sleeps);
}

/// And even while the old file is still open elsewhere (the VMM has it, too).
TEST(RemovalOfFds, signalled_afterwards_does_not_wake) {
    RunningPoller p(Policy::kAdaptive);
    EventFd kick;
    Probe probe;
    probe.fds = {kick.fd()};
    p.poller.add(probe);
    p.poller.remove(probe);
    ASSERT_TRUE(p.falls_asleep());
    const uint64_t sleeps = p.poller.stats().sleeps;
    kick.signal();
    std::this_thread::sleep_for(50ms);
    EXPECT_EQ(sleeps, p.poller.stats().sleeps);
}

TEST(RemovalOfFds, shared_with_another_still_wakes_that_one) {
    RunningPoller p(Policy::kAdaptive);
    EventFd kick;
    Probe a, b;
    a.fds = b.fds = {kick.fd()};
    p.poller.add(a);
    p.poller.add(b);
    p.poller.remove(a);
    ASSERT_TRUE(p.falls_asleep());
    b.work = 1;
    kick.signal();
    EXPECT_TRUE(eventually([&] { return b.work == 0; }));
    p.poller.remove(b);
}

}  // namespace
}  // namespace viommu::poll::test
