// SPDX-License-Identifier: BSD-3-Clause
#include "sched.hh"

#include <fmt/format.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <utility>

namespace viommu::model {
namespace {

constexpr size_t kStackBytes = 256 << 10;
/// A scenario that takes longer does not end.
constexpr uint64_t kMostSteps = 100000;

[[noreturn]] void die(const char* why) {
    std::fprintf(stderr, "model: %s\n", why);
    std::abort();
}

}  // namespace

const char* to_string(Broken broken) {
    constexpr const char* kNames[] = {"nothing",         "no_writer_fence", "no_reader_fence",
                                      "release_relaxed", "blind_writer",    "no_wait",
                                      "generation_late", "death_unnoticed"};
    return kNames[size_t(broken)];
}

/// Makes the decisions.
struct Chooser {
    virtual ~Chooser() = default;
    virtual void begin(size_t threads) = 0;
    /// Who goes on: an index into `candidates`. candidates[0] is the thread that runs, when `stay`.
    virtual size_t who(const std::vector<size_t>& candidates, bool stay) = 0;
    /// How many of n pending stores have arrived: 0 ... n.
    virtual size_t arrived(size_t n) = 0;
};

/// One execution.
class Scheduler {
  public:
    Scheduler(World& world, Chooser& chooser, bool keep_account)
        : world_(world), chooser_(chooser), keep_account_(keep_account) {}

    void run();
    uint64_t load(uintptr_t at, size_t bytes);
    void store(uintptr_t at, size_t bytes, uint64_t value, std::memory_order order);
    uint64_t add(uintptr_t at, size_t bytes, uint64_t n, std::memory_order order);
    void fence();
    void step();
    void wait_until(const std::function<bool()>& done);
    void check(bool holds, const std::string& what);

    uint64_t steps = 0;
    std::string violation;
    std::string account;

  private:
    struct Store {
        uintptr_t at;
        size_t bytes;
        uint64_t value;
        bool release;
    };
    struct Thread {
        ucontext_t context;
        std::vector<Store> buffer;
        bool finished = false;
        bool waiting = false;  // until another thread has made a step
    };

    void add_thread();
    static void enter_thread();
    void body();
    void go_to(size_t next);
    void arrive(Thread& thread, size_t last);
    void empty(Thread& thread);
    bool any_pending(uintptr_t at, const Thread& except) const;
    uintptr_t canonical(uintptr_t at) const;
    bool is_readers(uintptr_t at) const;
    std::string describe(uintptr_t at) const;
    template <class... Args>
    void note(fmt::format_string<Args...> f, Args&&... args) {
        if (keep_account_)
            account += fmt::format("{} ", current_ == 0 ? "writer  "
                                                        : "reader " + std::to_string(current_)) +
                       fmt::format(f, std::forward<Args>(args)...) + "\n";
    }
    static uint64_t read(uintptr_t at, size_t bytes) {
        uint64_t value = 0;
        std::memcpy(&value, reinterpret_cast<const void*>(at), bytes);
        return value;
    }

    World& world_;
    Chooser& chooser_;
    bool keep_account_;
    std::vector<std::unique_ptr<Thread>> threads_;
    size_t current_ = 0;
    ucontext_t main_;
};

namespace {
Scheduler* active = nullptr;
std::vector<std::unique_ptr<char[]>> stacks;  // used again by the next execution
}  // namespace

// --- threads -------------------------------------------------------------------------------------

void Scheduler::run() {
    active = this;
    while (threads_.size() < world_.threads_.size()) add_thread();
    chooser_.begin(threads_.size());
    std::vector<size_t> all;
    for (size_t i = 0; i < threads_.size(); ++i) all.push_back(i);
    current_ = all[chooser_.who(all, false)];
    swapcontext(&main_, &threads_[current_]->context);
    for (auto& thread : threads_) empty(*thread);
    active = nullptr;
}

/// A function of its own: getcontext() returns twice, as far as the compiler knows.
void Scheduler::add_thread() {
    const size_t index = threads_.size();
    if (stacks.size() <= index) stacks.push_back(std::make_unique<char[]>(kStackBytes));
    threads_.push_back(std::make_unique<Thread>());
    ucontext_t& context = threads_.back()->context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks[index].get();
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, enter_thread, 0);
}

void Scheduler::enter_thread() { active->body(); }

void Scheduler::body() {
    world_.threads_[current_]();
    threads_[current_]->finished = true;
    std::vector<size_t> others;
    for (size_t i = 0; i < threads_.size(); ++i) {
        threads_[i]->waiting = false;
        if (!threads_[i]->finished) others.push_back(i);
    }
    if (others.empty()) {
        setcontext(&main_);
    } else {
        current_ = others[chooser_.who(others, false)];
        setcontext(&threads_[current_]->context);
    }
    die("a finished thread went on");
}

void Scheduler::go_to(size_t next) {
    if (next == current_) return;
    const size_t from = std::exchange(current_, next);
    swapcontext(&threads_[from]->context, &threads_[next]->context);
}

void Scheduler::step() {
    if (++steps > kMostSteps) die("the scenario does not end");
    std::vector<size_t> candidates = {current_};
    for (size_t i = 0; i < threads_.size(); ++i) {
        if (i == current_ || threads_[i]->finished) continue;
        threads_[i]->waiting = false;
        candidates.push_back(i);
    }
    go_to(candidates[chooser_.who(candidates, true)]);
}

void Scheduler::wait_until(const std::function<bool()>& done) {
    while (!done()) {
        threads_[current_]->waiting = true;
        std::vector<size_t> others;
        for (size_t i = 0; i < threads_.size(); ++i)
            if (i != current_ && !threads_[i]->finished && !threads_[i]->waiting)
                others.push_back(i);
        if (!others.empty()) {
            go_to(others[chooser_.who(others, false)]);
            continue;
        }
        // Only what others have stored and what has not arrived yet can end it.
        bool arrived = false;
        for (auto& thread : threads_)
            if (thread.get() != threads_[current_].get() && !thread->buffer.empty()) {
                empty(*thread);
                arrived = true;
            }
        if (!arrived) {
            if (done()) return;
            check(false, "waits for ever");
            return;
        }
    }
}

void Scheduler::check(bool holds, const std::string& what) {
    if (holds || !violation.empty()) return;
    violation = fmt::format("{}: {}", current_ == 0 ? "writer" : "reader", what);
    note("VIOLATION: {}", what);
}

// --- memory --------------------------------------------------------------------------------------

uintptr_t Scheduler::canonical(uintptr_t at) const {
    for (const auto& s : world_.shared_)
        if (at - s.readers < s.bytes) return at - s.readers + s.writers;
    return at;
}

bool Scheduler::is_readers(uintptr_t at) const {
    return std::any_of(world_.shared_.begin(), world_.shared_.end(),
                       [&](const auto& s) { return at - s.writers < s.bytes; });
}

std::string Scheduler::describe(uintptr_t at) const {
    for (const auto& n : world_.names_)
        if (at - n.at < n.bytes) return fmt::format("{}+{:#x}", n.what, at - n.at);
    return fmt::format("{:#x}", at);
}

/// buffer[last] reaches memory, and what must reach it before.
void Scheduler::arrive(Thread& thread, size_t last) {
    std::vector<bool> goes(last + 1, false);
    std::vector<uintptr_t> addresses;
    bool all = false;
    for (size_t i = last + 1; i-- > 0;) {
        const Store& s = thread.buffer[i];
        if (i != last && !all &&
            std::find(addresses.begin(), addresses.end(), s.at) == addresses.end())
            continue;
        goes[i] = true;
        addresses.push_back(s.at);
        all |= s.release;
    }
    std::vector<Store> rest;
    for (size_t i = 0; i < thread.buffer.size(); ++i) {
        const Store& s = thread.buffer[i];
        if (i <= last && goes[i])
            std::memcpy(reinterpret_cast<void*>(s.at), &s.value, s.bytes);
        else
            rest.push_back(s);
    }
    thread.buffer = std::move(rest);
}

void Scheduler::empty(Thread& thread) {
    for (const Store& s : thread.buffer)
        std::memcpy(reinterpret_cast<void*>(s.at), &s.value, s.bytes);
    thread.buffer.clear();
}

uint64_t Scheduler::load(uintptr_t at, size_t bytes) {
    const uintptr_t id = canonical(at);
    Thread& me = *threads_[current_];
    const bool readers = is_readers(id);
    if (current_ == 0 && readers && world_.broken() == Broken::kBlindWriter) return 0;
    // Nobody else stores there.
    const bool own = current_ == 0 && !readers;
    if (!own) step();
    for (size_t i = me.buffer.size(); i-- > 0;)
        if (canonical(me.buffer[i].at) == id) return me.buffer[i].value;
    if (own) return read(at, bytes);
    for (auto& thread : threads_) {
        if (thread.get() == &me) continue;
        std::vector<size_t> pending;
        for (size_t i = 0; i < thread->buffer.size(); ++i)
            if (canonical(thread->buffer[i].at) == id) pending.push_back(i);
        if (pending.empty()) continue;
        if (const size_t n = chooser_.arrived(pending.size())) arrive(*thread, pending[n - 1]);
    }
    const uint64_t value = read(at, bytes);
    note("loads {} = {:#x}", describe(id), value);
    return value;
}

void Scheduler::store(uintptr_t at, size_t bytes, uint64_t value, std::memory_order order) {
    const uintptr_t id = canonical(at);
    if (current_ != 0 && !is_readers(id)) die("a reader stores to the table");
    Thread& me = *threads_[current_];
    const bool release =
        order != std::memory_order_relaxed && world_.broken() != Broken::kReleaseRelaxed;
    // No one can see that a value is stored over itself; and a word has one writer. (Zeroing a node
    // would otherwise be 512 pending stores.)
    uint64_t newest = 0;
    bool pending = false;
    for (size_t i = me.buffer.size(); i-- > 0 && !pending;)
        if (canonical(me.buffer[i].at) == id) {
            newest = me.buffer[i].value;
            pending = true;
        }
    if (!pending) newest = read(at, bytes);
    if (newest != value) {
        note("stores {} := {:#x}{}", describe(id), value, release ? ", release" : "");
        me.buffer.push_back({at, bytes, value, release});
    } else if (release && pending) {
        // What comes before it must still come before it.
        me.buffer.push_back({at, bytes, value, release});
    }
    if (order == std::memory_order_seq_cst) fence();
}

uint64_t Scheduler::add(uintptr_t at, size_t bytes, uint64_t n, std::memory_order order) {
    Thread& me = *threads_[current_];
    const uintptr_t id = canonical(at);
    uint64_t old = read(at, bytes);
    for (const Store& s : me.buffer)
        if (canonical(s.at) == id) old = s.value;
    store(at, bytes, old + n, order);
    return old;
}

void Scheduler::fence() {
    Thread& me = *threads_[current_];
    if (world_.broken() == (current_ == 0 ? Broken::kNoWriterFence : Broken::kNoReaderFence))
        return;
    if (me.buffer.empty()) return;
    step();
    note("full fence");
    empty(me);
}

// --- the way in ----------------------------------------------------------------------------------

bool running() noexcept { return active != nullptr; }
uint64_t load(const void* at, size_t bytes) noexcept { return active->load(uintptr_t(at), bytes); }
void store(void* at, size_t bytes, uint64_t value, std::memory_order order) noexcept {
    active->store(uintptr_t(at), bytes, value, order);
}
uint64_t add(void* at, size_t bytes, uint64_t n, std::memory_order order) noexcept {
    return active->add(uintptr_t(at), bytes, n, order);
}
void full_fence() noexcept {
    if (active != nullptr) active->fence();
}
void step() { active->step(); }
void check(bool holds, const std::string& what) { active->check(holds, what); }
void wait_until(const std::function<bool()>& done) { active->wait_until(done); }

// --- choosing ------------------------------------------------------------------------------------

namespace {

/// Depth first: the same decisions as before up to the last that has an alternative.
struct Systematic final : Chooser {
    struct Decision {
        size_t taken, options;
    };
    unsigned bound;
    unsigned preemptions = 0;
    size_t at = 0;
    std::vector<Decision> path;

    explicit Systematic(unsigned most_preemptions) : bound(most_preemptions) {}
    void begin(size_t) override {
        at = 0;
        preemptions = 0;
    }
    size_t decide(size_t options) {
        if (options == 1) return 0;
        if (at == path.size()) path.push_back({0, options});
        if (path[at].options != options) die("an execution cannot be repeated");
        return path[at++].taken;
    }
    size_t who(const std::vector<size_t>& candidates, bool stay) override {
        if (stay && preemptions == bound) return 0;
        const size_t n = decide(candidates.size());
        preemptions += stay && n != 0;
        return n;
    }
    size_t arrived(size_t n) override { return decide(n + 1); }
    bool next() {
        while (!path.empty() && path.back().taken + 1 == path.back().options) path.pop_back();
        if (path.empty()) return false;
        ++path.back().taken;
        return true;
    }
};

/// The thread of highest priority goes on; at a few moments the one that runs becomes the lowest.
struct Random final : Chooser {
    static constexpr unsigned kChanges = 4;
    std::mt19937_64 rng;
    uint64_t length = 64;  // steps of the last execution
    uint64_t steps = 0;
    std::vector<int64_t> priority;
    std::vector<uint64_t> changes;
    int64_t lowest = 0;

    explicit Random(uint64_t seed) : rng(seed) {}
    void begin(size_t threads) override {
        length = std::max<uint64_t>(steps, 16);
        steps = 0;
        priority.clear();
        for (size_t i = 0; i < threads; ++i) priority.push_back(int64_t(rng() >> 2));
        changes.clear();
        for (unsigned i = 0; i < kChanges; ++i) changes.push_back(rng() % length);
        lowest = -1;
    }
    size_t who(const std::vector<size_t>& candidates, bool stay) override {
        if (stay && std::count(changes.begin(), changes.end(), steps) != 0)
            priority[candidates[0]] = lowest--;
        ++steps;
        size_t best = 0;
        for (size_t i = 1; i < candidates.size(); ++i)
            if (priority[candidates[i]] > priority[candidates[best]]) best = i;
        return best;
    }
    size_t arrived(size_t n) override { return rng() % 2 == 0 ? 0 : 1 + rng() % n; }
};

void once(const Scenario& scenario, Broken broken, Chooser& chooser, Report& report,
          bool keep_account) {
    World world(broken);
    scenario(world);
    Scheduler scheduler(world, chooser, keep_account);
    scheduler.run();
    ++report.executions;
    report.steps += scheduler.steps;
    report.violation = scheduler.violation;
    report.account = scheduler.account;
}

}  // namespace

Report explore(const Scenario& scenario, Broken broken, unsigned preemptions, uint64_t most) {
    Systematic chooser(preemptions);
    Report report;
    while (report.executions < most) {
        once(scenario, broken, chooser, report, false);
        if (!report.violation.empty()) {
            once(scenario, broken, chooser, report, true);  // the same again, on record
            return report;
        }
        if (!chooser.next()) {
            report.complete = true;
            return report;
        }
    }
    return report;
}

Report wander(const Scenario& scenario, Broken broken, uint64_t seed, uint64_t executions) {
    Random chooser(seed);
    Report report;
    while (report.executions < executions && report.violation.empty()) {
        const Random before = chooser;
        once(scenario, broken, chooser, report, false);
        if (report.violation.empty()) continue;
        chooser = before;
        once(scenario, broken, chooser, report, true);
    }
    return report;
}

}  // namespace viommu::model
