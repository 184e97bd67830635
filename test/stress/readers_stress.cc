// SPDX-License-Identifier: BSD-3-Clause
/// Readers under a live writer. Checks the theorem of lib/table: a translation never outlives the
/// answer to its UNMAP, DETACH or re-ATTACH.
///
/// Guest memory is an array of pages, each holding one word. The writer maps pages at the IOVAs of
/// a slot (after writing into each which slot's page it is), unmaps them, waits for the grace
/// period and then poisons them: from that moment no reader may see them through any section.
/// Readers translate and read what they find: the page of that slot, or a fault, and never poison.
/// The words are plain memory, so under TSan a missing happens-before between a reader's last use
/// and the poisoning is reported as a race even when the timing happens to be kind.
///
///   readers-stress [--seconds N] [--readers N] [--paged N] [--seed N]
///
/// Of the readers, N have their sections on a ReaderPage, as reader processes do, the others by
/// rte_rcu. Ends with the counts; status 1 when a reader saw what it must not.
#include <sys/mman.h>

#include <CLI/CLI.hpp>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "stress_memory.hh"
#include "viommu_xlate.hh"

namespace {

using namespace viommu;
using namespace viommu::stress;
using Clock = std::chrono::steady_clock;

constexpr EndpointId kEndpoint = 8;
constexpr unsigned kBurst = 32;

struct Options {
    unsigned seconds = 3;
    unsigned readers = 2;
    // Under TSan none: the writer sees the page at another address, and TSan knows addresses only.
#ifdef __SANITIZE_THREAD__
    unsigned paged = 0;
#else
    unsigned paged = 1;
#endif
    uint64_t seed = std::random_device{}();
    bool without_wait = false;
};

/// One reader's, padded: counted at packet rate.
struct alignas(64) Tally {
    uint64_t sections = 0, translations = 0, faults = 0, bursts = 0, kept = 0, violations = 0;
};

// --- a reader ------------------------------------------------------------------------------------

class ReaderThread {
  public:
    ReaderThread(xlate::Reader reader, const Memory& memory, uint64_t seed, Tally& tally)
        : reader_(std::move(reader)), memory_(memory), rng_(seed), tally_(tally) {}

    void run(const std::atomic<bool>& stop) {
        while (!stop.load(std::memory_order_relaxed)) {
            reader_.enter();
            const bool fresh = !keep_ || generation_ != reader_.generation();
            if (fresh) keep();
            switch (rng_() % 4) {
                case 0:
                    one_by_one();
                    break;
                case 1:
                    long_runs();
                    break;
                case 2:
                    burst();
                    break;
                default:
                    use_kept();
                    break;
            }
            reader_.leave();
            ++tally_.sections;
            if (rng_() % 64 == 0) std::this_thread::yield();
        }
    }

  private:
    struct Question {
        Iova iova;
        uint64_t tag;  // what the page there must say
    };
    struct Kept {
        Question question;
        Gpa gpa;
    };

    Question question() {
        const uint64_t slot = rng_() % kSlots;
        const uint64_t page = rng_() % pages_of(slot);
        return {{iova_of(slot) + page * kPage + rng_() % 4000}, tag_of(slot, page)};
    }
    /// `t` answers a question about [q.iova, + as many bytes as it says).
    void look(const Question& q, const xlate::Translation& t) {
        ++tally_.translations;
        if (!t) {
            ++tally_.faults;
            return;
        }
        const uint64_t first = t.gpa().value / kPage;
        const uint64_t last = (t.gpa().value + t.bytes() - 1) / kPage;
        for (uint64_t page = first; page <= last; ++page)
            tally_.violations += memory_.words[page] != q.tag + (page - first);
    }
    void one_by_one() {
        for (unsigned i = 0; i < kBurst; ++i) {
            const Question q = question();
            look(q, reader_.translate(q.iova, 8, Access::kRead));
        }
    }
    void long_runs() {
        for (unsigned i = 0; i < 4; ++i) {
            const uint64_t slot = kSmallSlots + rng_() % (kSlots - kSmallSlots);
            const uint64_t page = rng_() % pages_of(slot);
            const uint64_t pages = 1 + rng_() % (pages_of(slot) - page);
            look({{}, tag_of(slot, page)},
                 reader_.translate({iova_of(slot) + page * kPage}, pages * kPage, Access::kRead));
        }
    }
    void burst() {
        std::array<xlate::Lookup, kBurst> in;
        std::array<Question, kBurst> questions;
        std::vector<xlate::Translation> out(
            kBurst, xlate::Translation::faulted(xlate::FaultReason::kUnknown));
        for (unsigned i = 0; i < kBurst; ++i) {
            questions[i] = question();
            in[i] = {questions[i].iova, 8};
        }
        reader_.translate_burst(in, out, Access::kRead);
        for (unsigned i = 0; i < kBurst; ++i) look(questions[i], out[i]);
        ++tally_.bursts;
    }
    /// As NetPort keeps its rings' addresses.
    void use_kept() {
        for (const Kept& k : kept_) {
            tally_.violations += memory_.words[k.gpa.value / kPage] != k.question.tag;
            ++tally_.kept;
        }
    }
    void keep() {
        kept_.clear();
        keep_ = true;
        generation_ = reader_.generation();
        for (unsigned i = 0; i < 8; ++i) {
            const Question q = question();
            const auto t = reader_.translate(q.iova, 8, Access::kRead);
            look(q, t);
            if (t) kept_.push_back({q, t.gpa()});
        }
    }

    xlate::Reader reader_;
    const Memory& memory_;
    std::mt19937_64 rng_;
    Tally& tally_;
    bool keep_ = false;
    uint64_t generation_ = 0;
    std::vector<Kept> kept_;
};

/// A page of reader slots, mapped as by a reader process.
class Page final : table::SlotOwner {
  public:
    explicit Page(table::Table& table)
        : table_(table), place_(std::move(*table.readers().pages().add())) {
        page_ = static_cast<table::ReaderPage*>(
            mmap(nullptr, sizeof *page_, PROT_READ | PROT_WRITE, MAP_SHARED, place_.page.get(), 0));
        if (page_ == MAP_FAILED) std::abort();
    }
    ~Page() {
        table_.readers().pages().remove(place_.process);
        munmap(page_, sizeof *page_);
    }
    Result<xlate::Reader> reader(xlate::FaultSink& faults) {
        const unsigned slot = slots_++;
        page_->taken().store((uint64_t{1} << slots_) - 1, std::memory_order_release);
        const table::View view = table_.arena().view();
        table::Section section(view.header->reader_token, *page_, slot, *this);
        return xlate::Reader::create(view, std::move(section), faults, kEndpoint);
    }

  private:
    void give_back(unsigned) noexcept override {}

    table::Table& table_;
    table::ReaderPages::Place place_;
    table::ReaderPage* page_;
    unsigned slots_ = 0;
};

// --- the writer ----------------------------------------------------------------------------------

class Writer {
  public:
    Writer(table::Table& table, Memory& memory, const Options& options)
        : table_(table), memory_(memory), options_(options), rng_(options.seed) {}

    void run(Clock::time_point end) {
        while (Clock::now() < end) pass();
    }
    void print() const {
        std::printf(
            "writer: %lu maps, %lu unmaps, %lu of them large, %lu moves, %lu detaches, "
            "%lu graces, longest %.3f ms\n",
            maps_, unmaps_, large_, moves_, detaches_, graces_, longest_ * 1e3);
    }

  private:
    /// A few requests that share one wait, as the request queue does it.
    void pass() {
        for (uint64_t n = rng_() % 8 + 1; n > 0; --n) toggle(rng_() % kSmallSlots);
        if (rng_() % 16 == 0) toggle(kSmallSlots + rng_() % (kSlots - kSmallSlots));
        if (rng_() % 64 == 0) {  // the domain dies with all that is in it
            domain_ = 3 - domain_;
            need(table_.attach(kEndpoint, domain_, false));
            everything_left();
            ++moves_;
            for (unsigned i = 0; i < kSlots; ++i) toggle(i);
        }
        if (rng_() % 256 == 0) {
            need(table_.detach(kEndpoint, domain_));
            everything_left();
            ++detaches_;
            answer();
            need(table_.attach(kEndpoint, domain_, false));
        }
        if (table_.dirty()) answer();
        // Time for readers to use what they kept.
        if (rng_() % 32 == 0) std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    void toggle(uint64_t slot) {
        Block& block = mapped_[slot];
        const IovaRange range{{iova_of(slot)}, {iova_of(slot) + pages_of(slot) * kPage - 1}};
        if (block) {
            need(table_.unmap(domain_, range));
            leaving_.push_back({slot, block});
            block = {};
            ++unmaps_;
        } else {
            block = memory_.take(slot);
            for (uint64_t i = 0; i < pages_of(slot); ++i)
                memory_.words[*block + i] = tag_of(slot, i);
            need(table_.map(domain_, range, {*block * kPage}, Access::kReadWrite));
            ++maps_;
        }
        large_ += slot >= kSmallSlots;
    }
    void everything_left() {
        for (uint64_t slot = 0; slot < kSlots; ++slot)
            if (mapped_[slot]) leaving_.push_back({slot, std::exchange(mapped_[slot], {})});
    }
    void answer() {
        const auto start = Clock::now();
        const auto token = table_.start_grace();
        while (!options_.without_wait && !table_.grace_over(token)) std::this_thread::yield();
        longest_ = std::max(longest_, std::chrono::duration<double>(Clock::now() - start).count());
        ++graces_;
        for (const auto& [slot, block] : leaving_) {
            for (uint64_t i = 0; i < pages_of(slot); ++i) memory_.words[*block + i] = kPoison;
            memory_.give_back(slot, block);
        }
        leaving_.clear();
        // Its nodes: whatever was retired is freed at the next look.
        if (options_.without_wait) (void)table_.grace_over(token);
    }
    static void need(Status status) {
        if (status == Status::kOk) return;
        std::fprintf(stderr, "a request was answered %s\n", to_string(status));
        std::abort();
    }

    table::Table& table_;
    Memory& memory_;
    const Options& options_;
    std::mt19937_64 rng_;
    DomainId domain_ = 1;
    std::array<Block, kSlots> mapped_{};
    std::vector<std::pair<uint64_t, Block>> leaving_;
    uint64_t maps_ = 0, unmaps_ = 0, large_ = 0, moves_ = 0, detaches_ = 0, graces_ = 0;
    double longest_ = 0;
};

int run(const Options& options) {
    std::printf("seed %lu\n", options.seed);
    auto table = std::move(*table::Table::create({}));
    if (!table->add_endpoint(kEndpoint) || table->attach(kEndpoint, 1, false) != Status::kOk)
        return 1;
    xlate::FaultQueue faults;
    Memory memory;
    std::atomic<bool> stop{false};
    std::vector<Tally> tallies(options.readers);
    std::vector<std::thread> threads;
    Page page(*table);
    for (unsigned i = 0; i < options.readers; ++i) {
        auto reader = i < options.paged ? page.reader(faults)
                                        : xlate::Reader::create(*table, faults, kEndpoint);
        if (!reader) {
            std::fprintf(stderr, "%s\n", reader.error().message.c_str());
            return 1;
        }
        threads.emplace_back([&, i, r = std::move(*reader)]() mutable {
            ReaderThread(std::move(r), memory, options.seed + 1 + i, tallies[i]).run(stop);
        });
    }
    Writer writer(*table, memory, options);
    writer.run(Clock::now() + std::chrono::seconds(options.seconds));
    stop.store(true);
    for (auto& t : threads) t.join();

    Tally sum;
    bool good = true;
    for (unsigned i = 0; i < options.readers; ++i) {
        const Tally& t = tallies[i];
        std::printf(
            "%s: %lu sections, %lu translations, %lu faults, %lu bursts, %lu kept, "
            "%lu violations\n",
            i < options.paged ? "paged reader" : "reader", t.sections, t.translations, t.faults,
            t.bursts, t.kept, t.violations);
        // One that never met a mapping, or always, has tested nothing.
        good &= t.faults != 0 && t.translations > t.faults && t.kept != 0 && t.bursts != 0;
        sum.translations += t.translations;
        sum.violations += t.violations;
    }
    writer.print();
    const std::string wrong = table->self_check();
    if (!wrong.empty()) std::printf("self_check: %s\n", wrong.c_str());
    std::printf("%lu translations, %lu violations\n", sum.translations, sum.violations);
    if (options.without_wait) return sum.violations != 0 ? 0 : 1;
    return good && wrong.empty() && sum.violations == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    CLI::App app("Readers under a live writer.");
    app.add_option("--seconds", options.seconds, "How long")
        ->envname("VIOMMU_STRESS_SECONDS")
        ->capture_default_str();
    app.add_option("--readers", options.readers, "Threads")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    app.add_option("--paged", options.paged, "How many of them as in another process")
        ->capture_default_str();
    app.add_option("--seed", options.seed, "Of the requests and questions");
    app.add_flag("--without-wait", options.without_wait,
                 "Answer without waiting for readers; status 0 when that is noticed");
    CLI11_PARSE(app, argc, argv);
    return run(options);
}
