// SPDX-License-Identifier: BSD-3-Clause
/// Reader processes under a live writer, killed and started again at random.
///
/// As readers_stress.cc, with the guest's memory shared between processes: the writer maps pages
/// that hold their slot's number, unmaps them, waits for readers, and poisons them. Meanwhile
/// another thread sends SIGKILL to reader processes, wherever they are, and SIGSTOP, which leaves
/// the kill to the server. No reader may see poison, and no wait may be longer than the bound, a
/// tick, and what a busy machine adds.
///
///   processes-stress [--seconds N] [--readers N] [--seed N]
#include <CLI/CLI.hpp>
#include <cstdio>
#include <random>

#include "child.hh"
#include "served.hh"

namespace {

using namespace viommu;
using namespace viommu::share;
using Clock = std::chrono::steady_clock;

constexpr auto kBound = 200ms;
/// A bound for the test, not the daemon's: processes share two CPUs with other builds.
constexpr double kLongestWait = 10;

struct Options {
    unsigned seconds = 3;
    unsigned readers = 4;
    unsigned seed = std::random_device{}();
    bool without_wait = false;
};

/// Kills, stops and starts readers until told to end.
class Killer {
  public:
    Killer(const std::string& socket, const SharedMapping& shared, const Options& options)
        : socket_(socket), shared_(shared), rng_(options.seed + 1) {
        for (unsigned i = 0; i < options.readers; ++i) children_.push_back(start(i));
    }
    void run(const std::atomic<bool>& stop) {
        while (!stop.load(std::memory_order_relaxed)) {
            std::this_thread::sleep_for(std::chrono::microseconds(rng_() % 20'000));
            const unsigned victim = unsigned(rng_() % children_.size());
            if (rng_() % 8 == 0) {
                ::kill(children_[victim]->pid(), SIGSTOP);
                ++stops;
                // The server's turn, if that was inside a section; else ours.
                std::this_thread::sleep_for(2 * kBound);
            }
            children_[victim].reset();
            ++kills;
            children_[victim] = start(victim);
        }
        children_.clear();
    }
    uint64_t kills = 0, stops = 0;

  private:
    std::unique_ptr<Child> start(unsigned number) {
        return std::make_unique<Child>("translate", socket_, kEndpoint, shared_, number);
    }
    const std::string socket_;
    const SharedMapping& shared_;
    std::mt19937 rng_;
    std::vector<std::unique_ptr<Child>> children_;
};

class Writer {
  public:
    Writer(Served& served, SharedMemory& memory, const Options& options)
        : served_(served), memory_(memory), options_(options), rng_(options.seed) {
        for (uint64_t page = 0; page < 2 * kSlots; ++page) free_.push_back(page);
    }
    bool pass() {
        std::vector<uint64_t> leaving;
        for (uint64_t n = rng_() % 8 + 1; n > 0; --n) {
            const uint64_t slot = rng_() % kSlots;
            std::optional<uint64_t>& page = mapped_[slot];
            const IovaRange range{{iova_of(slot)}, {iova_of(slot) + kPage - 1}};
            if (page) {
                good_ &= served_.table->unmap(1, range) == Status::kOk;
                leaving.push_back(*page);
                page.reset();
                ++unmaps;
            } else {
                page = free_.back();
                free_.pop_back();
                memory_.pages[*page].word.store(slot, std::memory_order_relaxed);
                const Gpa gpa{*page * kPage};
                good_ &= served_.table->map(1, range, gpa, Access::kReadWrite) == Status::kOk;
                ++maps;
            }
        }
        if (leaving.empty()) return good_;
        std::optional<std::chrono::duration<double>> waited(0);
        if (options_.without_wait)
            (void)served_.table->grace_over(served_.table->start_grace());
        else
            waited = served_.wait_for_readers(60s);
        if (!waited) return false;
        ++waits;
        longest = std::max(longest, waited->count());
        held_up += *waited > kBound / 2;
        for (const uint64_t page : leaving) {
            memory_.pages[page].word.store(kPoison, std::memory_order_relaxed);
            free_.push_back(page);
        }
        return good_;
    }
    uint64_t maps = 0, unmaps = 0, waits = 0, held_up = 0;
    double longest = 0;

  private:
    Served& served_;
    SharedMemory& memory_;
    const Options& options_;
    std::mt19937 rng_;
    std::vector<uint64_t> free_;
    std::array<std::optional<uint64_t>, kSlots> mapped_;
    bool good_ = true;
};

int run(const Options& options) {
    std::printf("seed %u\n", options.seed);
    Server::Config config;
    config.stall_bound = kBound;
    Served served(config);
    SharedMapping shared;
    Killer killer(served.directory.socket(), shared, options);
    std::atomic<bool> stop{false};
    std::thread killing([&] { killer.run(stop); });
    Writer writer(served, *shared.memory, options);
    bool good = true;
    const auto end = Clock::now() + std::chrono::seconds(options.seconds);
    while (good && Clock::now() < end) good = writer.pass();
    stop.store(true);
    killing.join();

    uint64_t hits = 0, faults = 0, sections = 0, violations = 0, starts = 0;
    for (const auto& tally : shared.memory->tallies) {
        hits += tally.hits.load();
        faults += tally.faults.load();
        sections += tally.sections.load();
        violations += tally.violations.load();
        starts += tally.starts.load();
    }
    const Server::Stats& stats = served.server->stats();
    std::printf("readers: %lu starts, %lu sections, %lu hits, %lu faults, %lu violations\n", starts,
                sections, hits, faults, violations);
    std::printf("killer: %lu kills, %lu stops; server: %lu accepted, %lu left, %lu killed\n",
                killer.kills, killer.stops, stats.accepted.was(), stats.left.was(),
                stats.killed.was());
    std::printf("writer: %lu maps, %lu unmaps, %lu waits, %lu of them held up, longest %.1f ms\n",
                writer.maps, writer.unmaps, writer.waits, writer.held_up, writer.longest * 1e3);
    const std::string wrong = served.table->self_check();
    if (!wrong.empty()) std::printf("self_check: %s\n", wrong.c_str());
    if (options.without_wait) return violations != 0 ? 0 : 1;
    return good && wrong.empty() && violations == 0 && hits != 0 && faults != 0 &&
                   writer.longest < kLongestWait && stats.disconnected.was() == 0 &&
                   !testing::Test::HasFailure()
               ? 0
               : 1;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    CLI::App app("Reader processes under a live writer, killed and started again.");
    app.add_option("--seconds", options.seconds, "How long")
        ->envname("VIOMMU_STRESS_SECONDS")
        ->capture_default_str();
    app.add_option("--readers", options.readers, "Processes, at most 64")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    app.add_option("--seed", options.seed, "Of the requests and the kills");
    app.add_flag("--without-wait", options.without_wait,
                 "Answer without waiting for readers; status 0 when that is noticed");
    CLI11_PARSE(app, argc, argv);
    return run(options);
}
