// SPDX-License-Identifier: BSD-3-Clause
#include "poller.hh"

#include <poll.h>
#include <rte_pause.h>
#include <rte_rcu_qsbr.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <new>
#include <system_error>

namespace viommu::poll {

namespace {

using std::chrono::microseconds;

/// Idle rounds at full speed: the guest answers a batch within this when it is awake on its core.
constexpr unsigned kSpinRounds = 256;
/// Then idle rounds with a pause (40-140 cycles) each: in sum about what a sleep and its wake-up
/// cost both sides (two syscalls, the guest's exit for the kick: some 50 us), the classic bound
/// that makes waiting at most twice as expensive as knowing the future.
constexpr unsigned kPauseRounds = 1024;
/// A sleep when some wake-up fd cannot be watched (the frontend gave a file that epoll refuses).
constexpr microseconds kBlindSleep{500};

/// The one thread that polls, as the RCU variable numbers it.
constexpr unsigned kReader = 0;

/// `fd`, unless the call `what` that should have made it failed.
Fd opened(int fd, const char* what) {
    if (fd < 0) throw std::system_error(errno, std::generic_category(), what);
    return Fd(fd);
}

struct Freer {
    void operator()(void* p) const { free(p); }
};

std::unique_ptr<rte_rcu_qsbr, Freer> make_rcu() {
    const size_t bytes = rte_rcu_qsbr_get_memsize(1);
    auto* rcu = static_cast<rte_rcu_qsbr*>(aligned_alloc(RTE_CACHE_LINE_SIZE, bytes));
    if (rcu == nullptr) throw std::bad_alloc();
    // Neither can fail for one thread. Registered for good, and offline until run().
    rte_rcu_qsbr_init(rcu, 1);
    rte_rcu_qsbr_thread_register(rcu, kReader);
    return std::unique_ptr<rte_rcu_qsbr, Freer>(rcu);
}

struct Entry {
    Pollable* pollable;
    std::vector<int> fds;  ///< those that the epoll set watches
    bool blind;            ///< there is one that it could not
};

using List = std::vector<Entry>;

}  // namespace

struct Poller::Impl {
    explicit Impl(Policy p)
        : policy(p),
          epoll(opened(epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
          wake(opened(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
          rcu(make_rcu()),
          owned(std::make_unique<const List>()),
          list(owned.get()) {
        if (!watch(wake.get()))
            throw std::system_error(errno, std::generic_category(), "epoll_ctl");
    }

    // Control side.
    bool watch(int fd);
    void unwatch(int fd, const List& still_needed_by);
    void publish(std::unique_ptr<const List> next);
    void signal() noexcept;

    // Polling side.
    unsigned round() noexcept;
    unsigned idle(unsigned idle_rounds) noexcept;
    bool arm(const List& l) noexcept;
    void disarm(const List& l) noexcept;
    void sleep(microseconds limit) noexcept;
    microseconds sleep_limit(const List& l) const noexcept;

    const Policy policy;
    const Fd epoll;
    const Fd wake;
    const std::unique_ptr<rte_rcu_qsbr, Freer> rcu;

    std::mutex control;  ///< of add and remove among themselves; protects `owned`
    std::unique_ptr<const List> owned;

    /// Release in publish(), acquire in the polling thread: the list's content.
    std::atomic<const List*> list;
    /// Set by stop(), taken by run(). Followed by a signal on `wake`, whose edge is not lost.
    std::atomic<bool> stopping{false};
    static_assert(std::atomic<bool>::is_always_lock_free, "stop() is for signal handlers, too");

    Counter idle_rounds, busy_rounds, sleeps;
};

/// Edge-triggered: each signal on `fd` is one event, and nobody needs to read the fd to get the
/// next one. An event that comes while the poller is awake ends its next sleep at once; that costs
/// one turn and loses nothing.
bool Poller::Impl::watch(int fd) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    return epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) == 0 || errno == EEXIST;
}

void Poller::Impl::unwatch(int fd, const List& still_needed_by) {
    for (const Entry& e : still_needed_by)
        if (std::ranges::find(e.fds, fd) != e.fds.end()) return;
    epoll_ctl(epoll.get(), EPOLL_CTL_DEL, fd, nullptr);
}

/// Replace the list, and free the old one when the polling thread cannot be in it any more.
void Poller::Impl::publish(std::unique_ptr<const List> next) {
    list.store(next.get(), std::memory_order_release);
    std::swap(owned, next);
    // Pairs with the fence in rte_rcu_qsbr_thread_online(): either that thread sees the new list,
    // or we see that it is online.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const uint64_t token = rte_rcu_qsbr_start(rcu.get());
    // Yield rather than spin: the thread waited for may need this very core to finish its round.
    while (rte_rcu_qsbr_check(rcu.get(), token, false) == 0) sched_yield();
}

void Poller::Impl::signal() noexcept {
    const int saved = errno;  // a signal handler must not change it
    const uint64_t one = 1;
    // Fails only when 2^64 - 2 signals are already pending; then there is an event anyway.
    [[maybe_unused]] const ssize_t n = write(wake.get(), &one, sizeof one);
    errno = saved;
}

unsigned Poller::Impl::round() noexcept {
    unsigned done = 0;
    for (const Entry& e : *list.load(std::memory_order_acquire)) done += e.pollable->poll();
    rte_rcu_qsbr_quiescent(rcu.get(), kReader);
    return done;
}

/// What to do after the `n`-th idle round in a row. Returns the new n.
unsigned Poller::Impl::idle(unsigned n) noexcept {
    if (policy == Policy::kBusy || n < kSpinRounds) return n + 1;
    if (n < kSpinRounds + kPauseRounds) {
        rte_pause();
        return n + 1;
    }
    const List& now = *list.load(std::memory_order_acquire);
    const microseconds limit = sleep_limit(now);
    if (limit <= microseconds::zero()) {
        // May not sleep, but must not starve whoever shares this core, perhaps the very thread
        // that has our next work.
        sched_yield();
        return n;
    }
    if (!arm(now)) {
        // Work that nobody could do yet, for example an UNMAP that waits for readers. Let others
        // run, and do not arm in every round: it writes to memory shared with the guest.
        disarm(now);
        sched_yield();
        return kSpinRounds;
    }
    sleep(limit);
    // Entries of `now` may have been removed and freed during the sleep.
    disarm(*list.load(std::memory_order_acquire));
    return 0;
}

bool Poller::Impl::arm(const List& l) noexcept {
    return std::ranges::all_of(l, [](const Entry& e) { return e.pollable->arm(); });
}

void Poller::Impl::disarm(const List& l) noexcept {
    for (const Entry& e : l) e.pollable->disarm();
}

microseconds Poller::Impl::sleep_limit(const List& l) const noexcept {
    microseconds limit = microseconds::max();
    for (const Entry& e : l) {
        limit = std::min(limit, e.pollable->sleep_limit());
        if (e.blind) limit = std::min(limit, kBlindSleep);
    }
    return limit;
}

void Poller::Impl::sleep(microseconds limit) noexcept {
    rte_rcu_qsbr_thread_offline(rcu.get(), kReader);
    if (!stopping.load(std::memory_order_acquire)) {
        sleeps.add();
        // The epoll set is itself a pollable fd; that way the timeout is finer than epoll's 1 ms.
        pollfd set{.fd = epoll.get(), .events = POLLIN, .revents = 0};
        timespec timeout{};
        timeout.tv_sec = limit.count() / 1'000'000;
        timeout.tv_nsec = limit.count() % 1'000'000 * 1000;
        ppoll(&set, 1, limit == microseconds::max() ? nullptr : &timeout, nullptr);
        // Take the events; which they were does not matter, everything is polled now.
        epoll_event events[32];
        while (epoll_wait(epoll.get(), events, std::size(events), 0) == int(std::size(events))) {
        }
    }
    rte_rcu_qsbr_thread_online(rcu.get(), kReader);
}

Poller::Poller(Policy policy) : impl_(std::make_unique<Impl>(policy)) {}

Poller::~Poller() = default;

void Poller::add(Pollable& p) {
    const std::lock_guard lock(impl_->control);
    auto next = std::make_unique<List>(*impl_->owned);
    Entry entry{.pollable = &p, .fds = {}, .blind = false};
    for (const int fd : p.wake_fds()) {
        if (fd < 0) continue;
        if (impl_->watch(fd)) {
            entry.fds.push_back(fd);
        } else {
            entry.blind = true;
        }
    }
    next->push_back(std::move(entry));
    impl_->publish(std::move(next));
    impl_->signal();
}

void Poller::remove(Pollable& p) {
    const std::lock_guard lock(impl_->control);
    auto next = std::make_unique<List>(*impl_->owned);
    const auto found = std::ranges::find(*next, &p, &Entry::pollable);
    if (found == next->end()) return;
    const std::vector<int> fds = std::move(found->fds);
    next->erase(found);
    for (const int fd : fds) impl_->unwatch(fd, *next);
    impl_->publish(std::move(next));
}

void Poller::run() noexcept {
    rte_rcu_qsbr* rcu = impl_->rcu.get();
    rte_rcu_qsbr_thread_online(rcu, kReader);
    unsigned idle_rounds = 0;
    while (!impl_->stopping.load(std::memory_order_acquire)) {
        if (impl_->round() != 0) {
            impl_->busy_rounds.add();
            idle_rounds = 0;
        } else {
            impl_->idle_rounds.add();
            idle_rounds = impl_->idle(idle_rounds);
        }
    }
    rte_rcu_qsbr_thread_offline(rcu, kReader);
    impl_->stopping.store(false,
                          std::memory_order_release);  // the request is done: run() may follow
}

void Poller::stop() noexcept {
    impl_->stopping.store(true, std::memory_order_release);
    impl_->signal();
}

Poller::Stats Poller::stats() const noexcept {
    return {impl_->idle_rounds.was(), impl_->busy_rounds.was(), impl_->sleeps.was()};
}

}  // namespace viommu::poll
