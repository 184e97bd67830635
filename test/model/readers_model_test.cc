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
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <random>

#include "sched.hh"
#include "viommu_xlate.hh"

namespace viommu {
namespace {

using model::Broken;
using model::check;
using model::World;
using xlate::Reader;

constexpr uint64_t kPage = 4096;
constexpr EndpointId kEndpoint = 8, kOther = 9;
/// Pages at the same place of different lowest nodes, so that a node that goes
/// to another IOVA leads a reader that is still in it astray.
constexpr uint64_t kA = 0x200000, kB = 0x400000, kC = 0x600000;

struct NoFaults final : xlate::FaultSink {
    bool push(const xlate::Fault&) noexcept override { return true; }
};

/// A table, its guest's memory, and a process with readers.
class Guest final : table::SlotOwner {
  public:
    Guest(World& world, unsigned readers, unsigned input_bits = 30)
        : broken_(world.broken()),
          table_(std::move(*table::Table::create({.input = {{0}, {(uint64_t{1} << input_bits) - 1}},
                                                  .max_endpoints = 2,
                                                  .max_regions = 1,
                                                  .max_domains = 4,
                                                  .arena_bytes = 40 * kPage,
                                                  .max_readers = 1}))),
          place_(*table_->readers().pages().add()) {
        for (const EndpointId e : {kEndpoint, kOther})
            if (!table_->add_endpoint(e)) std::abort();
        attach(kEndpoint, 1);
        page_ = static_cast<table::ReaderPage*>(
            mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, place_.page.get(), 0));
        if (page_ == MAP_FAILED) std::abort();
        page_->taken().store((uint64_t{1} << readers) - 1);
        // Where the writer sees the same page: what it loads to count the slots.
        table_->readers().pages().slots_taken(place_.process);
        const auto* writers = static_cast<const std::byte*>(model::last_load) -
                              offsetof(table::ReaderPage, slots[0].taken);
        world.readers_words(writers, page_, sizeof *page_);
        world.name(writers, kPage, "page");
        const auto* base = table_->arena().view().base;
        const table::ArenaHeader& header = table_->arena().header();
        world.name(&header.generation, 8, "generation");
        world.name(&header.reader_token, 8, "token");
        world.name(base + header.endpoints_offset, 128, "endpoint");
        world.name(base + header.nodes_offset, 40 * kPage, "node");
        for (unsigned i = 0; i < readers; ++i)
            readers_.push_back(std::move(*Reader::create(
                table_->arena().view(), table::Section(header.reader_token, *page_, i, *this),
                faults_, kEndpoint)));
    }
    ~Guest() {
        readers_.clear();
        munmap(page_, kPage);
    }
    void give_back(unsigned) noexcept override {}

    // The writer.
    void attach(EndpointId endpoint, DomainId domain) {
        ok(table_->attach(endpoint, domain, false));
        if (endpoint == kEndpoint) take_away();
        if (endpoint == kEndpoint) attached_ = domain;
    }
    void detach() {
        ok(table_->detach(kEndpoint, attached_));
        take_away();
        attached_ = 0;
    }
    /// Never the same page twice.
    void map(DomainId domain, uint64_t iova, uint64_t pages = 1) {
        const uint64_t gpa = next_gpa_;
        for (uint64_t i = 0; i < pages; ++i) owners_[gpa + i * kPage] = {iova + i * kPage, domain};
        next_gpa_ += 16 * kPage;
        ok(table_->map(domain, {{iova}, {iova + pages * kPage - 1}}, {gpa}, Access::kReadWrite));
    }
    void unmap(DomainId domain, uint64_t iova, uint64_t pages = 1) {
        ok(table_->unmap(domain, {{iova}, {iova + pages * kPage - 1}}));
        for (auto& [gpa, owner] : owners_)
            if (owner.domain == domain && owner.iova - iova < pages * kPage)
                leaving_.push_back(gpa);
    }
    /// Wait for readers, then answer: now the guest uses the pages for something
    /// else.
    void answer() {
        const auto token = table_->start_grace();
        if (broken_ != Broken::kNoWait)
            model::wait_until([&] { return table_->grace_over(token); });
        model::step();
        if (poisoning)
            for (const uint64_t gpa : leaving_) owners_[gpa].poisoned = true;
        leaving_.clear();
    }
    /// Before anything runs: nobody is inside a section.
    void answer_at_once() {
        if (!table_->grace_over(table_->start_grace())) std::abort();
        for (const uint64_t gpa : leaving_) owners_[gpa].poisoned = true;
        leaving_.clear();
    }

    // Readers.
    Reader& reader(unsigned i) { return readers_[i]; }
    xlate::Translation translate(unsigned i, uint64_t iova, uint64_t bytes = 64) {
        return readers_[i].translate({iova}, bytes, Access::kRead);
    }
    /// Read the page that `gpa` is in, which was found for `iova`.
    void touch(uint64_t iova, Gpa gpa) {
        model::step();
        const auto owner = owners_.find(gpa.value & ~(kPage - 1));
        check(owner != owners_.end() && owner->second.iova == (iova & ~(kPage - 1)),
              fmt::format("{:#x} was translated to {}, which is another's", iova, gpa));
        check(owner == owners_.end() || !owner->second.poisoned,
              fmt::format("{:#x} was translated to {}, which is no longer mapped", iova, gpa));
    }
    void use_burst(unsigned i, std::initializer_list<uint64_t> iovas) {
        std::vector<xlate::Lookup> in;
        for (const uint64_t iova : iovas) in.push_back({{iova}, 64});
        std::vector<xlate::Translation> out(
            in.size(), xlate::Translation::faulted(xlate::FaultReason::kUnknown));
        readers_[i].translate_burst(in, out, Access::kRead);
        for (size_t n = 0; n < in.size(); ++n)
            if (out[n]) touch(in[n].iova.value, out[n].gpa());
    }
    /// True when there is a translation.
    bool use(unsigned i, uint64_t iova) {
        const auto t = translate(i, iova);
        if (t) touch(iova, t.gpa());
        return bool(t);
    }

    table::Table& table() { return *table_; }
    bool poisoning = true;
    model::Atom<uint64_t> answered{0};  ///< the used ring's index: the writer's

  private:
    struct Owner {
        uint64_t iova = 0;
        DomainId domain = 0;
        bool poisoned = false;
    };
    static void ok(Status status) { check_setup(status == Status::kOk); }
    static void check_setup(bool good) {
        if (!good) std::abort();
    }
    /// The endpoint can reach what the domain maps no longer.
    void take_away() {
        for (auto& [gpa, owner] : owners_)
            if (owner.domain == attached_) leaving_.push_back(gpa);
    }

    Broken broken_;
    std::unique_ptr<table::Table> table_;
    table::ReaderPages::Place place_;
    table::ReaderPage* page_;
    NoFaults faults_;
    std::vector<Reader> readers_;
    std::map<uint64_t, Owner> owners_;  // of guest pages
    std::vector<uint64_t> leaving_;
    uint64_t next_gpa_ = 0x100000;
    DomainId attached_ = 0;
};

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
     4,
     {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kNoWait, Broken::kBlindWriter}},
    {"node_goes_to_another_mapping",
     node_goes_to_another_mapping,
     5,
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
    const auto report = model::explore(GetParam().scenario, Broken::kNothing, preemptions(), kMost);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("%s: %lu executions, %lu steps, at most %u preemptions, %.1f s\n", GetParam().name,
                report.executions, report.steps, preemptions(), seconds);
    EXPECT_TRUE(report.complete);
    EXPECT_EQ(report.violation, "") << report.account;
}

TEST_P(Interleavings, without_a_part_of_the_protocol_one_breaks_it) {
    for (const Broken broken : GetParam().fails_with) {
        const auto report = model::explore(GetParam().scenario, broken, preemptions(), kMost);
        EXPECT_NE(report.violation, "") << model::to_string(broken);
        std::printf("%s, %s: found after %lu executions: %s\n", GetParam().name,
                    model::to_string(broken), report.executions, report.violation.c_str());
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
        model::wander(everything, Broken::kNothing, seed, 5000 * (1 + env("VIOMMU_DEEPER")));
    EXPECT_EQ(report.violation, "") << report.account;
    std::printf("everything: %lu executions, %lu steps\n", report.executions, report.steps);
    for (const Broken broken : {Broken::kNoWriterFence, Broken::kNoReaderFence, Broken::kNoWait,
                                Broken::kBlindWriter, Broken::kReleaseRelaxed}) {
        const auto found = model::wander(everything, broken, seed, 200000);
        EXPECT_NE(found.violation, "") << model::to_string(broken);
        std::printf("everything, %s: found after %lu executions: %s\n", model::to_string(broken),
                    found.executions, found.violation.c_str());
    }
}

}  // namespace
}  // namespace viommu
