// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include "running_poller.hh"

namespace viommu::poll::test {
namespace {

TEST(Poller, idle_and_adaptive_sleeps_until_its_eventfd_is_signalled) {
    EventFd kick;
    Probe probe;
    probe.fds = {kick.fd()};
    RunningPoller p(Policy::kAdaptive);
    p.poller.add(probe);
    ASSERT_TRUE(p.falls_asleep());
    for (int i = 0; i < 20; ++i) {
        std::this_thread::sleep_for(1ms);
        const uint64_t sleeps = p.poller.stats().sleeps;
        probe.work = 1;
        kick.signal();
        ASSERT_TRUE(eventually([&] { return probe.work == 0; })) << "kick " << i;
        ASSERT_TRUE(eventually([&] { return p.poller.stats().sleeps > sleeps; }));
    }
    p.poller.remove(probe);
}

TEST(Poller, asleep_polls_nothing) {
    Probe probe;
    RunningPoller p(Policy::kAdaptive);
    p.poller.add(probe);
    ASSERT_TRUE(p.falls_asleep());
    EXPECT_TRUE(eventually([&] {
        const uint64_t polls = probe.polls;
        std::this_thread::sleep_for(50ms);
        return polls == probe.polls;
    }));
    EXPECT_GE(probe.arms, 1u);
    p.poller.remove(probe);
}

TEST(Poller, wake_fds_are_never_read) {
    EventFd kick;
    Probe probe;
    probe.fds = {kick.fd()};
    RunningPoller p(Policy::kAdaptive);
    p.poller.add(probe);
    for (int i = 0; i < 3; ++i) {
        ASSERT_TRUE(p.falls_asleep());
        kick.signal();
    }
    ASSERT_TRUE(p.falls_asleep());
    p.poller.remove(probe);
    eventfd_t count = 0;
    ASSERT_EQ(0, eventfd_read(kick.fd(), &count));
    EXPECT_EQ(3u, count);
}

TEST(Poller, asleep_is_woken_by_add) {
    RunningPoller p(Policy::kAdaptive);
    ASSERT_TRUE(p.falls_asleep());
    Probe probe;
    probe.work = 1;
    p.poller.add(probe);
    EXPECT_TRUE(eventually([&] { return probe.work == 0; }));
    p.poller.remove(probe);
}

TEST(Poller, asleep_is_woken_by_stop) {
    RunningPoller p(Policy::kAdaptive);
    ASSERT_TRUE(p.falls_asleep());
    p.stop();
}

TEST(Poller, asleep_is_stopped_by_a_signal_handler) {
    static Poller* target;
    RunningPoller p(Policy::kAdaptive);
    target = &p.poller;
    struct sigaction action {};
    action.sa_handler = [](int) { target->stop(); };
    ASSERT_EQ(0, sigaction(SIGUSR1, &action, nullptr));
    ASSERT_TRUE(p.falls_asleep());
    ASSERT_EQ(0, pthread_kill(p.thread(), SIGUSR1));
    p.join();
}

TEST(Poller, stop_before_run_ends_that_run_and_no_other) {
    Poller poller(Policy::kAdaptive);
    Probe probe;
    poller.add(probe);
    poller.stop();
    poller.run();
    EXPECT_EQ(0u, probe.polls);
    std::thread thread([&] { poller.run(); });
    EXPECT_TRUE(eventually([&] { return probe.polls > 0; }));
    poller.stop();
    thread.join();
    poller.remove(probe);
}

TEST(Poller, arm_refused_does_not_sleep_and_is_disarmed) {
    Probe probe;
    probe.may_sleep = false;
    RunningPoller p(Policy::kAdaptive);
    ASSERT_TRUE(p.falls_asleep());
    const uint64_t sleeps = p.poller.stats().sleeps;
    p.poller.add(probe);
    ASSERT_TRUE(eventually([&] { return probe.arms > 10; }));
    EXPECT_EQ(sleeps, p.poller.stats().sleeps);
    EXPECT_GE(probe.disarms + 1, probe.arms);
    probe.may_sleep = true;
    EXPECT_TRUE(p.falls_asleep());
    p.poller.remove(probe);
}

TEST(Poller, sleep_limit_finite_is_kept) {
    Probe probe;
    probe.limit = 2ms;
    RunningPoller p(Policy::kAdaptive);
    p.poller.add(probe);
    // The first may be cut short by the wake-up of add().
    ASSERT_TRUE(eventually([&] { return p.poller.stats().sleeps >= 5; }));
    const uint64_t sleeps = p.poller.stats().sleeps;
    const auto start = std::chrono::steady_clock::now();
    ASSERT_TRUE(eventually([&] { return p.poller.stats().sleeps >= sleeps + 20; }));
    const auto took = std::chrono::steady_clock::now() - start;
    EXPECT_GE(took, 19 * 2ms);
    p.poller.remove(probe);
}

TEST(Poller, sleep_limit_zero_never_sleeps) {
    Probe probe, other;
    probe.limit = 0us;
    RunningPoller p(Policy::kAdaptive);
    p.poller.add(other);
    p.poller.add(probe);
    ASSERT_TRUE(eventually([&] { return probe.polls > 100'000; }));
    const uint64_t sleeps = p.poller.stats().sleeps;
    const uint64_t polls = probe.polls;
    ASSERT_TRUE(eventually([&] { return probe.polls > polls + 10'000; }));
    EXPECT_EQ(sleeps, p.poller.stats().sleeps);
    EXPECT_EQ(0u, probe.arms);
    p.poller.remove(probe);
    EXPECT_TRUE(p.falls_asleep());
    p.poller.remove(other);
}

TEST(Poller, busy_never_sleeps) {
    Probe probe;
    RunningPoller p(Policy::kBusy);
    p.poller.add(probe);
    ASSERT_TRUE(eventually([&] { return probe.polls > 100'000; }));
    EXPECT_EQ(0u, p.poller.stats().sleeps);
    EXPECT_EQ(0u, probe.arms);
    p.poller.remove(probe);
}

TEST(Poller, stats_count_rounds_with_and_without_work) {
    Probe probe;
    RunningPoller p(Policy::kAdaptive);
    p.poller.add(probe);
    ASSERT_TRUE(p.falls_asleep());
    EXPECT_EQ(0u, p.poller.stats().busy_rounds);
    EXPECT_GT(p.poller.stats().idle_rounds, 0u);
    p.poller.remove(probe);
    probe.work = 7;
    p.poller.add(probe);
    EXPECT_TRUE(eventually([&] { return p.poller.stats().busy_rounds == 1; }));
    p.poller.remove(probe);
}

TEST(Poller, wake_fd_that_epoll_refuses_is_polled_now_and_then) {
    const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ASSERT_GE(file, 0);
    Probe probe;
    probe.fds = {-1, file};
    RunningPoller p(Policy::kAdaptive);
    p.poller.add(probe);
    ASSERT_TRUE(eventually([&] { return p.poller.stats().sleeps > 5; }));
    probe.work = 1;
    EXPECT_TRUE(eventually([&] { return probe.work == 0; }));
    p.poller.remove(probe);
    close(file);
}

/// Two pollers that may not sleep, on one core: each must get through its rounds.
TEST(Poller, two_on_one_core_both_make_progress) {
    Probe probes[2];
    RunningPoller a(Policy::kAdaptive), b(Policy::kAdaptive);
    RunningPoller* pollers[] = {&a, &b};
    cpu_set_t one, allowed;
    ASSERT_EQ(0, pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed));
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu)
        if (CPU_ISSET(cpu, &allowed)) CPU_SET(cpu, &one);
    for (int i = 0; i < 2; ++i) {
        ASSERT_EQ(0, pthread_setaffinity_np(pollers[i]->thread(), sizeof one, &one));
        probes[i].limit = 0us;
        pollers[i]->poller.add(probes[i]);
    }
    const auto both_advanced = [&] { return probes[0].polls > 5'000 && probes[1].polls > 5'000; };
    EXPECT_TRUE(eventually(both_advanced));
    for (int i = 0; i < 2; ++i) pollers[i]->poller.remove(probes[i]);
}

}  // namespace
}  // namespace viommu::poll::test
