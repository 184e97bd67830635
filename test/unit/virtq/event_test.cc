// SPDX-License-Identifier: BSD-3-Clause
/// Notifications: who asks for what, and when one is due (virtio 1.3, 2.7.7, 2.7.10, 2.8.10).
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <atomic>
#include <thread>

#include "any_rig.hh"

namespace viommu::virtq::test {
namespace {

constexpr uint64_t kData = Rig::kDataAt;

void offer(AnyRig& rig) {
    ASSERT_TRUE(rig.driver->chain({{kData, 1, 0, 0}}));
    rig.driver->publish();
}
void serve(AnyRig& rig) {
    ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    rig.queue.push(rig.chain.taken(), 0);
}
/// Take and return `n`, publish, and say whether the guest wants a signal.
bool batch(AnyRig& rig, unsigned n) {
    for (unsigned i = 0; i < n; ++i) offer(rig), serve(rig);
    EXPECT_TRUE(rig.queue.flush());
    const bool wanted = rig.queue.needs_signal();
    while (rig.driver->pop()) {
    }
    return wanted;
}

class EventIdx : public testing::TestWithParam<uint64_t> {
  protected:
    AnyRig::Shape shape(uint32_t size = 8, uint32_t base = 0) const {
        if (base == 0 && (GetParam() & kPacked) != 0) base = 0x80008000;
        return {.size = size, .features = GetParam() | kEvents, .base = base};
    }
};

TEST_P(EventIdx, signal_is_due_when_the_batch_passes_the_event_and_not_before_or_after) {
    for (unsigned skip = 0; skip < 6; ++skip) {
        for (unsigned first = 1; first < 7; ++first) {
            AnyRig rig(shape());
            for (unsigned warm = 0; warm < 13; ++warm) batch(rig, 1);
            rig.driver->want_interrupt_after(skip);
            EXPECT_EQ(batch(rig, first), skip < first) << skip << " " << first;
            EXPECT_EQ(batch(rig, 7), skip >= first) << skip << " " << first;
        }
    }
}

TEST_P(EventIdx, signal_is_decided_over_everything_flushed_since_the_last_decision) {
    AnyRig rig(shape());
    rig.driver->want_interrupt_after(1);
    for (unsigned i = 0; i < 4; ++i) {
        offer(rig), serve(rig);
        EXPECT_TRUE(rig.queue.flush());
    }
    EXPECT_TRUE(rig.queue.needs_signal()) << "the event was in an earlier flush";
    EXPECT_FALSE(rig.queue.needs_signal()) << "nothing new";
}

TEST_P(EventIdx, what_is_pushed_and_not_flushed_decides_nothing) {
    AnyRig rig(shape());
    rig.driver->want_interrupt_after(1);
    offer(rig), offer(rig);
    serve(rig);
    EXPECT_TRUE(rig.queue.flush());
    serve(rig);
    EXPECT_FALSE(rig.queue.needs_signal());
    EXPECT_TRUE(rig.queue.flush());
    EXPECT_TRUE(rig.queue.needs_signal());
}

TEST_P(EventIdx, armed_the_next_buffer_kicks_and_only_that) {
    AnyRig rig(shape());
    for (unsigned i = 0; i < 30; ++i) {
        EXPECT_TRUE(rig.queue.arm());
        offer(rig);
        EXPECT_TRUE(rig.driver->needs_kick());
        offer(rig);
        EXPECT_FALSE(rig.driver->needs_kick()) << "one is enough to wake us";
        EXPECT_FALSE(rig.queue.arm()) << "there is work";
        serve(rig), serve(rig);
        rig.queue.complete();
        while (rig.driver->pop()) {
        }
    }
}

TEST_P(EventIdx, batch_that_passes_the_armed_place_kicks_once) {
    AnyRig rig(shape());
    EXPECT_TRUE(rig.queue.arm());
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(rig.driver->chain({{kData, 1, 0, 0}}));
    rig.driver->publish();
    EXPECT_TRUE(rig.driver->needs_kick());
    EXPECT_FALSE(rig.driver->needs_kick());
}

/// Split: an event that is 2^16 behind is ahead again. While we poll the guest must not kick.
TEST_P(EventIdx, polled_queue_is_never_kicked) {
    AnyRig rig(shape(256));
    rig.queue.enable_notifications(false);
    unsigned kicks = 0;
    for (unsigned i = 0; i < 200000; ++i) {
        offer(rig);
        kicks += rig.driver->needs_kick();
        serve(rig);
        rig.queue.flush();
        while (rig.driver->pop()) {
        }
    }
    EXPECT_EQ(kicks, 0u);
}

INSTANTIATE_TEST_SUITE_P(Formats, EventIdx, testing::Values(0, kPacked));

TEST(SplitEventIdx, flags_are_ignored_and_zero) {
    AnyRig rig({.size = 8, .features = kEvents});
    auto& guest = static_cast<ReferenceDriver&>(*rig.driver);
    rig.space.put(Rig::kUsedAt, uint16_t{1});
    rig.queue.enable_notifications(false);
    EXPECT_EQ(guest.used_flags(), 0) << "2.7.10.2: the device MUST set flags to 0";
    rig.space.put(Rig::kAvailAt, uint16_t{1});  // NO_INTERRUPT, which now means nothing
    guest.want_interrupt_after(0);
    EXPECT_TRUE(batch(rig, 1));
}

TEST(SplitEventIdx, parts_include_the_event_fields) {
    // Each ring ends exactly at the end of its page without them.
    const uint32_t size = 8;
    Rig::Shape s{.size = size,
                 .avail_skew = uint32_t(kPage) - wire::avail_ring_bytes(size),
                 .used_skew = uint32_t(kPage) - wire::used_ring_bytes(size)};
    for (const uint64_t features : {uint64_t{0}, kEvents}) {
        s.features = features;
        Rig rig(s);
        ASSERT_TRUE(rig.is_bound);
        const Vring v = Rig::vring(s);
        rig.space.unmap(v.avail / kPage * kPage + kPage);
        EXPECT_EQ(rig.queue.bind(rig.space, v, features), features == 0);
    }
    for (const uint64_t features : {uint64_t{0}, kEvents}) {
        s.features = features;
        Rig rig(s);
        const Vring v = Rig::vring(s);
        rig.space.unmap(v.used / kPage * kPage + kPage);
        EXPECT_EQ(rig.queue.bind(rig.space, v, features), features == 0);
    }
}

TEST(PackedEvents, each_wish_of_the_driver_is_followed) {
    struct Case {
        uint16_t place, mode;
        bool events, want;
    };
    for (const Case& c : {Case{0, 0, false, true}, Case{0, 1, false, false},
                          Case{0x8005, 2, true, false}, Case{0x8000, 2, true, true},
                          Case{0, 2, true, false},                // the next lap's
                          Case{0x8005, 2, false, true},           // DESC needs EVENT_IDX
                          Case{0x8000 | 99, 2, true, true},       // no such place
                          Case{0x8005, 3, true, true}}) {         // reserved
        AnyRig rig({.size = 8, .features = kPacked | (c.events ? kEvents : 0)});
        auto& guest = static_cast<PackedDriver&>(*rig.driver);
        guest.wish(c.place, c.mode);
        EXPECT_EQ(batch(rig, 2), c.want) << c.place << " " << c.mode << " " << c.events;
    }
}

TEST(PackedEvents, device_area_says_enabled_disabled_or_where) {
    for (const uint64_t events : {uint64_t{0}, kEvents}) {
        AnyRig rig({.size = 5, .features = kPacked | events, .base = 0x00030003});
        auto& guest = static_cast<PackedDriver&>(*rig.driver);
        rig.queue.enable_notifications(false);
        EXPECT_EQ(guest.device_area(), 0x00010000u);
        rig.queue.enable_notifications(true);
        EXPECT_EQ(guest.device_area(), events == 0 ? 0u : 0x00020003u);
        batch(rig, 2);
        EXPECT_TRUE(rig.queue.arm());
        EXPECT_EQ(guest.device_area(), events == 0 ? 0u : 0x00028000u);
    }
}

// --- two threads ---------------------------------------------------------------------------------

struct EventFd {
    EventFd() : fd(eventfd(0, EFD_NONBLOCK)) {}
    ~EventFd() { close(fd); }
    int fd;
};

/// Waits for an eventfd. False when nothing comes: somebody sleeps who should have been woken.
bool wait(int fd) {
    pollfd p{fd, POLLIN, 0};
    if (poll(&p, 1, 20000) != 1) return false;
    uint64_t n;
    return read(fd, &n, sizeof n) == sizeof n;
}

class Wakeups : public testing::TestWithParam<uint64_t> {};

/// Driver and device each sleep whenever they find nothing, having asked to be woken; a lost
/// wake-up leaves one of them, and so both, asleep. A small ring: they run into each other often.
TEST_P(Wakeups, none_is_lost_between_two_threads) {
    const bool packed = (GetParam() & kPacked) != 0;
    constexpr unsigned kChains = 6000;
    AnyRig rig({.size = 4, .features = GetParam(), .base = packed ? 0x80008000 : 0});
    EventFd kick, call;
    Vring v = AnyRig::vring(rig.shape);
    v.call_fd = call.fd;
    ASSERT_TRUE(rig.queue.bind(rig.space, v, GetParam()));
    std::atomic<bool> lost{false};
    std::atomic<unsigned> kicks{0}, sleeps{0};

    std::thread device([&] {
        unsigned served = 0;
        rig.queue.enable_notifications(false);
        while (served < kChains && !lost) {
            if (rig.queue.pop(rig.chain) == Pop::kChain) {
                rig.queue.push(rig.chain.taken(), 0);
                ++served;
                if (served % 3 != 0) continue;  // batches of several sizes
            }
            rig.queue.complete();
            if (served == kChains || rig.queue.available(1) != 0 || !rig.queue.arm()) continue;
            if (!wait(kick.fd)) lost = true;
            rig.queue.enable_notifications(false);
        }
        rig.queue.complete();
    });

    unsigned offered = 0, returned = 0;
    rig.driver->want_interrupts(false);
    while (returned < kChains && !lost) {
        const unsigned before = returned;
        while (rig.driver->pop()) ++returned;
        bool any = false;
        while (offered < kChains && rig.driver->chain({{kData, 1, 0, 0}})) ++offered, any = true;
        rig.driver->publish();
        if (any && rig.driver->needs_kick()) {
            const uint64_t one = 1;
            ASSERT_EQ(write(kick.fd, &one, sizeof one), ssize_t(sizeof one));
            ++kicks;
        }
        if (any || returned != before || returned == kChains) continue;
        // Ask, and look again.
        if ((GetParam() & kEvents) != 0)
            rig.driver->want_interrupt_after(0);
        else
            rig.driver->want_interrupts(true);
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (rig.driver->pop()) {
            ++returned;
        } else {
            ++sleeps;
            if (!wait(call.fd)) lost = true;
        }
        rig.driver->want_interrupts(false);
    }
    device.join();
    EXPECT_FALSE(lost);
    EXPECT_EQ(returned, kChains);
    std::printf("%u kicks, %u sleeps, %u signals\n", kicks.load(), sleeps.load(),
                unsigned(rig.queue.stats().signals.was()));
}

INSTANTIATE_TEST_SUITE_P(Formats, Wakeups,
                         testing::Values(0, kEvents, kPacked, kPacked | kEvents));

}  // namespace
}  // namespace viommu::virtq::test
