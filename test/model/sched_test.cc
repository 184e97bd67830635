// SPDX-License-Identifier: BSD-3-Clause
/// The model checker itself, by litmus tests whose outcomes are known.
#include "sched.hh"

#include <gtest/gtest.h>

#include <set>

namespace viommu::model {
namespace {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

/// The writer stores x and y; the reader, whose own word is z, loads. All outcomes that occur.
struct Litmus {
    Atom<uint64_t> x, y, z;
};
template <class Writer, class Reader>
std::set<std::string> outcomes(Writer writer, Reader reader, unsigned preemptions = 8) {
    std::set<std::string> found;
    const Scenario scenario = [&](World& world) {
        auto m = std::make_shared<Litmus>();
        auto result = std::make_shared<std::string>();
        auto left = std::make_shared<int>(2);
        const auto done = [=, &found](const std::string& text) {
            *result += text;
            if (--*left == 0) found.insert(*result);
        };
        world.readers_words(&m->z, &m->z, sizeof m->z);
        world.thread([=] { done(writer(*m)); });
        world.thread([=] { done(reader(*m)); });
    };
    const Report report = explore(scenario, Broken::kNothing, preemptions, 1000000);
    EXPECT_TRUE(report.complete);
    EXPECT_EQ(report.violation, "");
    return found;
}
std::string digits(uint64_t a) { return std::to_string(a); }
/// By whom, and what. (Appended: to put a literal before a string warns in gcc 12, PR105651.)
std::string seen(char who, uint64_t what) {
    std::string text(1, who);
    text += digits(what);
    return text;
}

TEST(Litmus, store_buffering_without_fences_both_can_miss) {
    const auto writer = [](Litmus& m) {
        m.x.store(1, memory_order_release);
        return seen('w', m.z.load(memory_order_acquire));
    };
    const auto reader = [](Litmus& m) {
        m.z.store(1, memory_order_release);
        return seen('r', m.x.load(memory_order_acquire));
    };
    const auto found = outcomes(writer, reader);
    EXPECT_TRUE(found.count("w0r0") || found.count("r0w0"));
    EXPECT_EQ(found.size(), 8u);  // each of four, and in which order they ended
}

TEST(Litmus, store_buffering_with_one_fence_both_can_miss) {
    const auto writer = [](Litmus& m) {
        m.x.store(1, memory_order_release);
        full_fence();
        return seen('w', m.z.load(memory_order_acquire));
    };
    const auto reader = [](Litmus& m) {
        m.z.store(1, memory_order_release);
        return seen('r', m.x.load(memory_order_acquire));
    };
    const auto found = outcomes(writer, reader);
    EXPECT_TRUE(found.count("w0r0") || found.count("r0w0"));
}

TEST(Litmus, store_buffering_with_fences_one_sees_the_other) {
    const auto writer = [](Litmus& m) {
        m.x.store(1, memory_order_relaxed);
        full_fence();
        return seen('w', m.z.load(memory_order_acquire));
    };
    const auto reader = [](Litmus& m) {
        m.z.store(1, memory_order_relaxed);
        full_fence();
        return seen('r', m.x.load(memory_order_acquire));
    };
    const auto found = outcomes(writer, reader);
    EXPECT_FALSE(found.count("w0r0") || found.count("r0w0"));
    EXPECT_TRUE(found.count("w1r1") || found.count("r1w1"));
    EXPECT_TRUE(found.count("w0r1"));
    EXPECT_TRUE(found.count("r0w1"));
}

/// Message passing: x is the message, y says that it is there.
std::set<std::string> message(std::memory_order flag) {
    const auto writer = [flag](Litmus& m) {
        m.x.store(1, memory_order_relaxed);
        m.y.store(1, flag);
        return "";
    };
    const auto reader = [](Litmus& m) {
        const uint64_t there = m.y.load(memory_order_acquire);
        return digits(there) + digits(m.x.load(memory_order_relaxed));
    };
    return outcomes(writer, reader);
}

TEST(Litmus, message_with_release_is_there) {
    EXPECT_EQ(message(memory_order_release), (std::set<std::string>{"00", "01", "11"}));
}
TEST(Litmus, message_without_release_may_come_late) {
    EXPECT_EQ(message(memory_order_relaxed), (std::set<std::string>{"00", "01", "10", "11"}));
}

TEST(Litmus, one_address_is_seen_in_order) {
    const auto writer = [](Litmus& m) {
        m.x.store(1, memory_order_relaxed);
        m.x.store(2, memory_order_relaxed);
        return "";
    };
    const auto reader = [](Litmus& m) {
        const uint64_t first = m.x.load(memory_order_relaxed);
        return digits(first) + digits(m.x.load(memory_order_relaxed));
    };
    EXPECT_EQ(outcomes(writer, reader),
              (std::set<std::string>{"00", "01", "02", "11", "12", "22"}));
}

TEST(Litmus, no_preemption_and_no_fence_still_leaves_stores_pending) {
    // Whoever runs first, what it stored may have arrived or not.
    EXPECT_EQ(outcomes(
                  [](Litmus& m) {
                      m.x.store(1, memory_order_relaxed);
                      return "";
                  },
                  [](Litmus& m) { return digits(m.x.load(memory_order_relaxed)); }, 0),
              (std::set<std::string>{"0", "1"}));
}

TEST(Wait, for_a_store_ends_and_for_nothing_is_a_violation) {
    const auto scenario = [](uint64_t wanted) {
        return [wanted](World& world) {
            auto m = std::make_shared<Litmus>();
            world.readers_words(&m->z, &m->z, sizeof m->z);
            world.thread([=] { wait_until([=] { return m->z.load() == wanted; }); });
            world.thread([=] { m->z.store(1, memory_order_relaxed); });
        };
    };
    EXPECT_EQ(explore(scenario(1), Broken::kNothing, 3, 10000).violation, "");
    EXPECT_NE(explore(scenario(2), Broken::kNothing, 3, 10000).violation, "");
}

TEST(Exploration, of_two_threads_counts_every_interleaving) {
    // 3 steps each, that nobody is kept from: 6 choose 3.
    std::set<std::string> orders;
    const Scenario scenario = [&](World& world) {
        auto order = std::make_shared<std::string>();
        for (const char c : {'a', 'b'})
            world.thread([=, &orders] {
                for (int i = 0; i < 3; ++i) {
                    step();
                    *order += c;
                }
                if (order->size() == 6) orders.insert(*order);
            });
    };
    const Report all = explore(scenario, Broken::kNothing, 6, 100000);
    EXPECT_TRUE(all.complete);
    EXPECT_EQ(orders.size(), 20u);
    orders.clear();
    EXPECT_TRUE(explore(scenario, Broken::kNothing, 0, 100000).complete);
    EXPECT_EQ(orders, (std::set<std::string>{"aaabbb", "bbbaaa"}));
    orders.clear();
    wander(scenario, Broken::kNothing, 1, 2000);
    EXPECT_GE(orders.size(), 18u);  // four changes of priority cannot make ababab
}

}  // namespace
}  // namespace viommu::model
