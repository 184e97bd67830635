// SPDX-License-Identifier: BSD-3-Clause
/// A model checker for the real code: runs a scenario of a few threads again and again, each time
/// with other decisions about who goes on and which store has reached memory.
///
/// Threads are fibers. They are switched only before an access that another thread could notice.
///
/// Memory: every store goes into its thread's buffer. A relaxed store may reach memory at any time
/// and before other addresses' (as on Arm); a release store only after every store before it; those
/// to one address in order. A full fence empties the buffer. Loads are made in program order, and
/// see their own thread's buffer. So this is weaker than x86, and Arm without reordered loads: what
/// acquire is for is not tested here.
///
/// A store's way to memory is decided when it matters, when another thread loads the address: then
/// the store may have arrived or not. That loses nothing, and keeps the number of decisions small.
///
/// Thread 0 is the writer: only it stores to words outside of the readers' pages (asserted), so its
/// own loads of them are no decisions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "atom.hh"

namespace viommu::model {

/// What is taken away, to see that it is missed.
enum class Broken : uint8_t {
    kNothing,
    kNoWriterFence,   ///< Q3: the writer's full fences do nothing
    kNoReaderFence,   ///< Q1: the readers'
    kReleaseRelaxed,  ///< every release store is relaxed: a link may arrive before what it links
    kBlindWriter,     ///< the writer finds no reader in any section: freed, and answered, at once
    // The scenario's own business:
    kNoWait,          ///< answered without a look at grace_over()
    kGenerationLate,  ///< R3 after R1 and R2
    kDeathUnnoticed,  ///< a process dies, and its page stays
};
const char* to_string(Broken broken);

/// One execution being put together.
class World {
  public:
    explicit World(Broken broken) : broken_(broken) {}
    Broken broken() const { return broken_; }
    /// The first one is the writer.
    void thread(std::function<void()> body) { threads_.push_back(std::move(body)); }
    /// Words that readers write: where the writer sees them, and where the readers do.
    void readers_words(const void* writers, const void* readers, size_t bytes) {
        shared_.push_back({uintptr_t(writers), uintptr_t(readers), bytes});
    }
    /// For the account of a violation.
    void name(const void* at, size_t bytes, std::string what) {
        names_.push_back({uintptr_t(at), bytes, std::move(what)});
    }

  private:
    friend class Scheduler;
    struct Shared {
        uintptr_t writers, readers;
        size_t bytes;
    };
    struct Name {
        uintptr_t at;
        size_t bytes;
        std::string what;
    };
    Broken broken_;
    std::vector<std::function<void()>> threads_;
    std::vector<Shared> shared_;
    std::vector<Name> names_;
};

// --- for the threads of a scenario ---------------------------------------------------------------

/// A moment that others can notice, but no access of an Atom.
void step();
/// A promise of the code under test.
void check(bool holds, const std::string& what);
/// Let the others go on until `done`, which is asked again after each of their steps.
void wait_until(const std::function<bool()>& done);

// --- running -------------------------------------------------------------------------------------

using Scenario = std::function<void(World&)>;

struct Report {
    uint64_t executions = 0;
    uint64_t steps = 0;     ///< decisions where somebody could be interrupted
    bool complete = false;  ///< every execution within the bound was run
    std::string violation;  ///< the first, or empty
    std::string account;    ///< what happened in it, a line each
};

/// Every execution with at most `preemptions` switches away from a thread that could go on; up to
/// the first violation, or `most` executions.
Report explore(const Scenario& scenario, Broken broken, unsigned preemptions, uint64_t most);

/// `executions` random ones: priorities that change at a few random moments (after Burckhardt et
/// al., "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", ASPLOS 2010).
Report wander(const Scenario& scenario, Broken broken, uint64_t seed, uint64_t executions);

}  // namespace viommu::model
