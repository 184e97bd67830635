// SPDX-License-Identifier: BSD-3-Clause
/// Readers and the writer of a table, interleaved in every way within a bound
/// (sched.hh), then at random. lib/table and lib/xlate are compiled into this,
/// with an Atomic that asks the scheduler; the readers' sections are those of
/// reader processes (table::Section on a ReaderPage), whose every access is
/// ours to interleave.
///
/// Each page of guest memory is mapped once, at one IOVA, and poisoned when the
/// UNMAP could be answered. Whatever a reader translates must lead to a page of
/// that IOVA, not poisoned.
///
/// Each scenario runs again with something taken away (Broken), and must then
/// fail. VIOMMU_SEED repeats a random search.
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "guest.hh"

namespace viommu::model {
namespace {

// --- the scenarios
// -------------------------------------------------------------------------------

void unmap_and_poison(World& world) {
    auto g = std::make_shared<Guest>(world, 1);
    g->map(1, kA);
    world.thread([g] {
        g->unmap(1, kA);
        g->answer();
    });
    world.thread([g] {
        for (int section = 0; section < 2; ++section) {
            g->reader(0).enter();
            g->use(0, kA);
            g->use(0, kA);  // by the walk cache
            g->reader(0).leave();
        }
    });
}

/// The node that led to kA is kB's at once. Pages are not poisoned: only where
/// kB shows up counts.
void node_goes_to_another_mapping(World& world) {
    auto g = std::make_shared<Guest>(world, 1);
    g->poisoning = false;
    g->map(1, kC);  // so that the root is not empty in between
    g->map(1, kA);
    world.thread([g] {
        g->unmap(1, kA,
                 512);  // all that the node covers: it goes with its entries as they are
        g->answer();
        g->map(1, kB);
    });
    world.thread([g] {
        g->reader(0).enter();
        g->use(0, kA);
        g->use(0, kA);
        g->use(0, kB);
        g->reader(0).leave();
    });
}

/// A MAP over two nodes that were used before; both pages belong to one run.
void map_across_nodes(World& world) {
    auto g = std::make_shared<Guest>(world, 1);
    constexpr uint64_t kFirst = kB - kPage;
    g->map(1, kC);
    g->map(1, kFirst, 2);
    g->unmap(1, kA, 1024);  // with their entries as they are
    g->answer_at_once();
    world.thread([g] {
        g->map(1, kFirst, 2);
        g->answered.store(1, std::memory_order_release);
    });
    world.thread([g] {
        for (int section = 0; section < 2; ++section) {
            const bool answered = g->answered.load(std::memory_order_acquire) == 1;
            g->reader(0).enter();
            const auto t = g->translate(0, kFirst, 2 * kPage);
            if (t) g->touch(kFirst, t.gpa());
            if (t && t.bytes() == 2 * kPage) g->touch(kFirst + kPage, t.gpa() + kPage);
            check(!t || t.bytes() == kPage || t.bytes() == 2 * kPage, "a run of another length");
            check(!answered || (t && t.bytes() == 2 * kPage), "a MAP was answered and is not seen");
            g->reader(0).leave();
        }
    });
}

/// The old domain or the new one, and the same in all of a section.
void move_to_another_domain(World& world) {
    auto g = std::make_shared<Guest>(world, 1);
    g->attach(kOther, 2);
    g->map(1, kA);
    g->map(2, kA);
    world.thread([g] {
        g->attach(kEndpoint, 2);
        g->answer();
    });
    world.thread([g] {
        for (int section = 0; section < 2; ++section) {
            g->reader(0).enter();
            const auto first = g->translate(0, kA);
            check(bool(first), "between two domains");
            if (first) g->touch(kA, first.gpa());
            const auto second = g->translate(0, kA);
            check(second && second.gpa().value == first.gpa().value, "two domains in one section");
            g->reader(0).leave();
        }
    });
}

/// The domain dies, its root and nodes are the next domain's.
void domain_dies_and_root_is_reused(World& world) {
    auto g = std::make_shared<Guest>(world, 1);
    g->poisoning = false;
    g->map(1, kA);
    world.thread([g] {
        g->detach();
        g->answer();
        g->attach(kEndpoint, 3);
        g->map(3, kB);
        g->answer();
    });
    world.thread([g] {
        for (int section = 0; section < 2; ++section) {
            g->reader(0).enter();
            g->use(0, kA);
            g->use(0, kB);
            g->reader(0).leave();
        }
    });
}

/// As NetPort does: what an earlier section found is used as long as the
/// generation stands still.
void translation_kept_by_generation(World& world) {
    auto g = std::make_shared<Guest>(world, 1);
    g->map(1, kA);
    world.thread([g] {
        g->unmap(1, kA);
        g->answer();
    });
    const bool late = world.broken() == Broken::kGenerationLate;
    world.thread([g, late] {
        bool bound = false;
        uint64_t generation = 0;
        Gpa gpa{};
        for (int section = 0; section < 3; ++section) {
            Reader& reader = g->reader(0);
            reader.enter();
            if (!bound || generation != reader.generation()) {
                const auto t = g->translate(0, kA);
                bound = bool(t);
                gpa = t.gpa();
                generation =
                    late ? g->table().arena().header().generation.load() : reader.generation();
            }
            if (bound) g->touch(kA, gpa);
            reader.leave();
        }
    });
}

void two_readers(World& world) {
    auto g = std::make_shared<Guest>(world, 2);
    g->map(1, kC);
    g->map(1, kA);
    world.thread([g] {
        g->unmap(1, kA);
        g->answer();
        g->map(1, kB);
    });
    for (unsigned i = 0; i < 2; ++i)
        world.thread([g, i] {
            g->reader(i).enter();
            g->use(i, kA);
            g->use(i, i == 0 ? kA : kB);
            g->reader(i).leave();
        });
}

/// A burst holds all its translations until the last one is found.
void burst(World& world) {
    auto g = std::make_shared<Guest>(world, 1);
    g->map(1, kC);
    g->map(1, kA);
    world.thread([g] {
        g->unmap(1, kA, 512);
        g->answer();
        g->map(1, kB);
    });
    world.thread([g] {
        for (int section = 0; section < 2; ++section) {
            g->reader(0).enter();
            g->use_burst(0, {kA, kB, kA});
            g->reader(0).leave();
        }
    });
}

/// A process that comes while an UNMAP waits, reads, and goes.
void process_comes_and_goes(World& world) {
    auto g = std::make_shared<Guest>(world, 0);
    g->processes_change();
    g->map(1, kA);
    world.thread([g] {
        g->unmap(1, kA);
        g->answer();
    });
    world.thread([g] {
        Process& process = g->join(1);
        Reader& reader = process.reader(0);
        reader.enter();
        const auto t = reader.translate({kA}, 64, Access::kRead);
        if (t) g->touch(kA, t.gpa());
        reader.leave();
        process.gone();
    });
}

/// One that dies inside a section. Nobody else ever stores its count.
void process_dies_in_a_section(World& world) {
    auto g = std::make_shared<Guest>(world, 0);
    g->processes_change();
    g->map(1, kA);
    const bool unnoticed = world.broken() == Broken::kDeathUnnoticed;
    Process* process = &g->join(1);
    world.thread([g] {
        g->unmap(1, kA);
        g->answer();
    });
    world.thread([g, process, unnoticed] {
        Reader& reader = process->reader(0);
        reader.enter();
        const auto t = reader.translate({kA}, 64, Access::kRead);
        if (t) g->touch(kA, t.gpa());
        step();
        if (!unnoticed) process->gone();
    });
}

/// All of it, four levels deep; too long for every interleaving.
void everything(World& world) {
    auto g = std::make_shared<Guest>(world, 2, 48);
    g->map(1, kA);
    g->map(1, kC);
    world.thread([g] {
        g->unmap(1, kA);
        g->answer();
        g->map(1, kB);
        g->unmap(1, kC);
        g->answer();
        g->map(1, kA);
        g->attach(kEndpoint, 2);
        g->answer();
        g->map(2, kC);
        g->detach();
        g->answer();
        g->attach(kEndpoint, 3);
        g->map(3, kA);
        g->answer();
    });
    for (unsigned i = 0; i < 2; ++i)
        world.thread([g, i] {
            Reader& reader = g->reader(i);
            bool bound = false;
            uint64_t generation = 0;
            Gpa gpa{};
            for (int section = 0; section < 6; ++section) {
                reader.enter();
                g->use_burst(i, {kC, kA, kB});
                for (const uint64_t iova : {kA, kB, kC}) g->use(i, iova);
                if (!bound || generation != reader.generation()) {
                    const auto t = g->translate(i, kA);
                    bound = bool(t);
                    gpa = t.gpa();
                    generation = reader.generation();
                }
                if (bound) g->touch(kA, gpa);
                reader.leave();
            }
        });
}

// --- running them
// --------------------------------------------------------------------------------

struct Case {
    const char* name;
    void (*scenario)(World&);
    unsigned preemptions;
    std::vector<Broken> fails_with;
};

const std::vector<Case> kCases = {
    {"unmap_and_poison",
     unmap_and_poison,
     3,
     {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kNoWait, Broken::kBlindWriter}},
    {"node_goes_to_another_mapping",
     node_goes_to_another_mapping,
     4,
     {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kBlindWriter,
      Broken::kReleaseRelaxed}},
    {"map_across_nodes", map_across_nodes, 6, {Broken::kReleaseRelaxed}},
    {"move_to_another_domain",
     move_to_another_domain,
     3,
     {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kNoWait, Broken::kBlindWriter}},
    {"domain_dies_and_root_is_reused",
     domain_dies_and_root_is_reused,
     3,
     {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kBlindWriter,
      Broken::kReleaseRelaxed}},
    {"translation_kept_by_generation",
     translation_kept_by_generation,
     3,
     {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kNoWait, Broken::kBlindWriter,
      Broken::kGenerationLate}},
    {"burst",
     burst,
     3,
     {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kNoWait, Broken::kBlindWriter,
      Broken::kReleaseRelaxed}},
    {"process_comes_and_goes",
     process_comes_and_goes,
     4,
     {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kNoWait, Broken::kBlindWriter}},
    {"process_dies_in_a_section",
     process_dies_in_a_section,
     4,
     {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kNoWait, Broken::kDeathUnnoticed}},
    {"two_readers",
     two_readers,
     2,
     {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kNoWait, Broken::kBlindWriter}},
};

uint64_t env(const char* name) {
    const char* text = std::getenv(name);
    return text == nullptr ? 0 : std::strtoull(text, nullptr, 0);
}

constexpr uint64_t kMost = 20000000;  // executions; a scenario has far fewer

struct Interleavings : testing::TestWithParam<Case> {
    unsigned preemptions() const { return GetParam().preemptions + unsigned(env("VIOMMU_DEEPER")); }
};

TEST_P(Interleavings, all_within_the_bound_keep_the_promise) {
    const auto start = std::chrono::steady_clock::now();
    const auto report = explore(GetParam().scenario, Broken::kNothing, preemptions(), kMost);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("%s: %lu executions, %lu steps, at most %u preemptions, %.1f s\n", GetParam().name,
                report.executions, report.steps, preemptions(), seconds);
    EXPECT_TRUE(report.complete);
    EXPECT_EQ(report.violation, "") << report.account;
}

TEST_P(Interleavings, without_a_part_of_the_protocol_one_breaks_it) {
    for (const Broken broken : GetParam().fails_with) {
        const auto report = explore(GetParam().scenario, broken, preemptions(), kMost);
        EXPECT_NE(report.violation, "") << to_string(broken);
        std::printf("%s, %s: found after %lu executions: %s\n", GetParam().name, to_string(broken),
                    report.executions, report.violation.c_str());
        if (std::getenv("VIOMMU_ACCOUNT") != nullptr) std::printf("%s", report.account.c_str());
    }
}

INSTANTIATE_TEST_SUITE_P(Readers, Interleavings, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(RandomInterleavings, keep_the_promise_and_break_it_without_a_part) {
    const uint64_t given = env("VIOMMU_SEED");
    const uint64_t seed = given != 0 ? given : std::random_device{}();
    std::printf("seed %lu (VIOMMU_SEED=%lu repeats it)\n", seed, seed);
    const auto report =
        wander(everything, Broken::kNothing, seed, 5000 * (1 + env("VIOMMU_DEEPER")));
    EXPECT_EQ(report.violation, "") << report.account;
    std::printf("everything: %lu executions, %lu steps\n", report.executions, report.steps);
    for (const Broken broken : {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kNoWait,
                                Broken::kBlindWriter, Broken::kReleaseRelaxed}) {
        const auto found = wander(everything, broken, seed, 200000);
        EXPECT_NE(found.violation, "") << to_string(broken);
        std::printf("everything, %s: found after %lu executions: %s\n", to_string(broken),
                    found.executions, found.violation.c_str());
    }
}

}  // namespace
}  // namespace viommu::model
