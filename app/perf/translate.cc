// SPDX-License-Identifier: BSD-3-Clause
/// `dpdk-viommu-perf translate`: what it takes to find where an address lies.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "bench_table.hh"
#include "crew.hh"
#include "options.hh"
#include "translators.hh"

namespace viommu::perf {
namespace {

constexpr const char* kSingle = "translate";
constexpr const char* kHuge = "translate, 2M hugepages";
constexpr const char* kBurstOf = "translate_burst of 32";
constexpr const char* kWalk = "4-level walk, no cache";
constexpr const char* kMap = "shared_mutex + std::map";
constexpr const char* kList = "rwlock + sorted list";
constexpr const char* kLoop = "(loop alone)";

/// One competitor over one workload, checked and ready to be sampled.
class Entrant {
  public:
    Entrant(std::string name, std::unique_ptr<Translator> translator, const Workload& workload)
        : name_(std::move(name)),
          translator_(std::move(translator)),
          lane_(translator_->lane()),
          workload_(&workload) {}

    const std::string& name() const { return name_; }
    Translator& translator() { return *translator_; }
    std::span<const uint32_t> stream() const { return workload_->stream; }

    bool answers_right(uint64_t expected) { return lane_->run(workload_->stream) == expected; }

    void prepare(const Pace& pace) {
        operations_ = operations_for(pace, kBurst, [this](size_t n) { ask(n); });
        // Small sets are warm again at once.
        if (workload_->mapped.size() > 1024) warm_ticks_ = Clock::ticks_in(pace.warm_ns);
    }
    Sample sample() {
        for (const uint64_t start = Clock::ticks(); Clock::ticks() - start < warm_ticks_;)
            ask(kBurst * 8);
        return time_per_operation(operations_, [this] { ask(operations_); });
    }

  private:
    /// The next `n` questions of the stream, around and around.
    void ask(size_t n) {
        const auto stream = this->stream();
        uint64_t sum = 0;
        while (n != 0) {
            const size_t part = std::min(n, stream.size() - at_);
            sum += lane_->run(stream.subspan(at_, part));
            at_ = (at_ + part) % stream.size();
            n -= part;
        }
        keep(sum);
    }

    std::string name_;
    std::unique_ptr<Translator> translator_;
    std::unique_ptr<Lane> lane_;
    const Workload* workload_;
    size_t at_ = 0, operations_ = 0;
    uint64_t warm_ticks_ = 0;
};

using Entrants = std::vector<std::unique_ptr<Entrant>>;

Result<std::unique_ptr<Translator>> make(const std::string& name, const Workload& workload) {
    if (name == kMap) return make_map(workload);
    if (name == kList) return make_list(workload);
    if (name == kLoop) return make_nothing();
    return make_ours(workload, name == kWalk      ? Way::kWalk
                               : name == kBurstOf ? Way::kBurst
                               : name == kHuge    ? Way::kHuge
                                                  : Way::kSingle);
}

Result<Entrants> enter(const std::vector<std::string>& names, const Workload& workload) {
    Entrants entrants;
    const uint64_t expected = expected_sum(workload);
    for (const std::string& name : names) {
        auto translator = make(name, workload);
        if (!translator) return tl::unexpected(translator.error());
        entrants.push_back(std::make_unique<Entrant>(name, std::move(*translator), workload));
        if (name != kLoop && !entrants.back()->answers_right(expected))
            return fail("{} gives wrong answers", name);
    }
    return entrants;
}

std::vector<Measured> race(Entrants& entrants, const Pace& pace) {
    std::vector<Subject> subjects;
    for (auto& e : entrants) {
        e->prepare(pace);
        subjects.push_back({e->name(), [&entrant = *e] { return entrant.sample(); }});
    }
    return measure(subjects, pace);
}

Point point(double x, const Measured& m) {
    const Summary& s = m.cpu ? *m.cpu : m.value;
    return {x, s.median, s.p10, s.p90};
}

/// A line over x for each subject of a table with rows in order of x.
std::vector<Series> lines(const Table& table, const std::vector<double>& x,
                          const std::vector<std::string>& subjects,
                          const std::vector<std::string>& baselines) {
    std::vector<Series> series;
    for (const auto& subject : subjects) {
        const bool is_baseline = std::ranges::find(baselines, subject) != baselines.end();
        Series s{subject, {}, is_baseline};
        size_t i = 0;
        for (const Row& row : table.rows)
            if (row.subject == subject) s.points.push_back(point(x[i++], row.measured));
        series.push_back(std::move(s));
    }
    return series;
}

// --- one reader ----------------------------------------------------------------------------------

constexpr uint64_t kHot = 64;  ///< mappings of a hot working set

Result<Table> race_by_size(const Options& options, const Machine& machine, const char* title,
                           uint64_t hot) {
    const std::vector<uint64_t> sizes =
        options.pace.quick ? std::vector<uint64_t>{64, 4096}
                           : std::vector<uint64_t>{64, 512, 4096, 32768, 262144, 1 << 20};
    Table table{title, "ns per translation", {"mappings"}, {}, {}};
    // An arena takes all of its pages at once.
    const bool hugepages = machine.hugepages_free >= BenchTable::hugepages_for(sizes.back());
    table.notes.push_back(
        hugepages ? "the arena is on pages of 4K, except where hugepages are named"
                  : fmt::format("the arena is on pages of 4K: hugepages would take {} free ones",
                                BenchTable::hugepages_for(sizes.back())));
    for (const uint64_t size : sizes) {
        const auto workload = Workload::make(size, Pages::k4K, Order::kRandom, hot);
        std::vector<std::string> names{kSingle, kBurstOf, kWalk, kMap, kLoop};
        if (hugepages) names.insert(names.begin() + 1, kHuge);
        auto entrants = enter(names, workload);
        if (!entrants) return tl::unexpected(entrants.error());
        table.add(race(*entrants, options.pace), {count_text(size)}, kMap);
    }
    return table;
}

/// The x of race_by_size()'s rows.
std::vector<double> sizes_of(const Table& table, const char* subject) {
    std::vector<double> x;
    for (const Row& row : table.rows)
        if (row.subject == subject) x.push_back(parse_count(row.parameters[0]));
    return x;
}

Result<void> by_size(const Options& options, Results& results) {
    auto all =
        race_by_size(options, results.machine, "random 4K mappings, one reader, idle writer", 0);
    if (!all) return tl::unexpected(all.error());
    auto hot = race_by_size(
        options, results.machine,
        "hot: 64 neighbours among all mappings, 4K, random, one reader, idle writer", kHot);
    if (!hot) return tl::unexpected(hot.error());

    std::vector<std::string> drawn{kSingle, kBurstOf, kWalk, kMap};
    if (std::ranges::any_of(all->rows, [](const Row& r) { return r.subject == kHuge; }))
        drawn.insert(drawn.begin() + 1, kHuge);
    Chart chart{"One translation, random 4K mappings", "mappings", "ns", {}};
    chart.series = lines(*all, sizes_of(*all, kSingle), drawn, {kWalk, kMap});
    results.charts.push_back(std::move(chart));
    Chart hot_chart{"Hot: 64 neighbours among all mappings", "mappings", "ns", {}};
    hot_chart.series = lines(*hot, sizes_of(*hot, kSingle), drawn, {kWalk, kMap});
    hot_chart.target = 3;
    hot_chart.target_name = "target: 3 ns";
    results.charts.push_back(std::move(hot_chart));

    const Row &least = hot->row(kSingle, {"64"}),
              &most = hot->row(kSingle, hot->rows.back().parameters);
    const double ns = std::max(least.measured.value.median, most.measured.value.median);
    results.targets.push_back(
        {"translate.hot", "translate, hot working set, one reader",
         "<= 3 ns; >= 20x a lock + ordered map",
         fmt::format("{} ns; {:.1f}x with {} mappings, {:.1f}x with 64", number_text(ns),
                     1 / most.ratio, most.parameters[0], 1 / least.ratio),
         ns <= 3 && 1 / most.ratio >= 20});
    if (!options.pace.quick) {
        const Row& row = all->row(kSingle, {"1M"});
        const Row& burst = all->row(kBurstOf, {"1M"});
        results.targets.push_back(
            {"translate.random", "translate, uniformly random over 1M 4K mappings",
             ">= 10x a lock + ordered map",
             fmt::format("{} ns; {:.1f}x; in bursts {} ns, {:.1f}x",
                         number_text(row.measured.value.median), 1 / row.ratio,
                         number_text(burst.measured.value.median), 1 / burst.ratio),
             1 / row.ratio >= 10});
    }
    report(results, std::move(*all));
    report(results, std::move(*hot));
    return {};
}

Result<void> list_curve(const Options& options, Results& results) {
    const std::vector<std::string> names{kSingle, kMap, kList};
    const std::vector<uint64_t> sizes =
        options.pace.quick ? std::vector<uint64_t>{1, 45}
                           : std::vector<uint64_t>{1, 4, 16, 45, 164, 640, kMaxListEntries};
    Table table{"librte_vhost's way: random 4K entries in a sorted list",
                "ns per translation",
                {"entries"},
                {},
                {}};
    std::vector<double> x, y;
    for (const uint64_t size : sizes) {
        const auto workload = Workload::make(size, Pages::k4K, Order::kRandom);
        auto entrants = enter(names, workload);
        if (!entrants) return tl::unexpected(entrants.error());
        const auto measured = race(*entrants, options.pace);
        x.push_back(double(size)), y.push_back(find(measured, kList).value.median);
        table.add(measured, {count_text(size)}, kList);
    }
    table.notes.push_back(fmt::format(
        "the list costs {:.2f} ns per translation and entry (least squares)", fit_line(x, y).b));
    Chart chart{"librte_vhost's way, and ours", "entries", "ns", {}};
    chart.series = lines(table, x, {kSingle, kList, kMap}, {kList, kMap});
    results.charts.push_back(std::move(chart));
    report(results, std::move(table));
    return {};
}

Result<void> by_shape(const Options& options, Results& results) {
    const std::vector<std::string> names{kSingle, kBurstOf, kWalk, kMap};
    std::vector<uint64_t> sizes{64, 1 << 20};
    if (options.all) sizes = {64, 512, 4096, 32768, 262144, 1 << 20};
    if (options.pace.quick) sizes = {64};
    Table table{"by size of page and order, one reader, idle writer",
                "ns per translation",
                {"mappings", "pages", "order"},
                {},
                {}};
    for (const uint64_t size : sizes)
        for (const Pages pages : {Pages::k4K, Pages::k2M, Pages::kMixed})
            for (const Order order : {Order::kSequential, Order::kRandom}) {
                const auto workload = Workload::make(size, pages, order);
                auto entrants = enter(names, workload);
                if (!entrants) return tl::unexpected(entrants.error());
                table.add(race(*entrants, options.pace),
                          {count_text(size), to_string(pages), to_string(order)}, kMap);
            }
    std::vector<uint64_t> drawn{sizes.front()};
    if (sizes.back() != sizes.front()) drawn.push_back(sizes.back());
    for (const uint64_t size : drawn) {
        Chart chart{fmt::format("{} mappings, by page and order", count_text(size)), "", "ns", {}};
        for (const std::string& name : names) {
            Series series{name, {}, name == kWalk || name == kMap};
            for (const Row& row : table.rows)
                if (row.subject == name && row.parameters[0] == count_text(size))
                    series.points.push_back(point(0, row.measured));
            chart.series.push_back(std::move(series));
        }
        for (const char* pages : {"4K", "2M", "mixed"})
            for (const char* order : {"seq.", "rand."})
                chart.labels.push_back(fmt::format("{} {}", pages, order));
        results.charts.push_back(std::move(chart));
    }
    report(results, std::move(table));
    return {};
}

// --- readers and a writer ------------------------------------------------------------------------

/// kPaced: MAP and UNMAP kPacedPerSecond times a second; kLive: as fast as it can.
enum class Writer : uint8_t { kIdle, kPaced, kLive };
constexpr double kPacedPerSecond = 100'000;

struct Company {
    unsigned readers;
    Writer writer;

    std::string readers_text() const { return std::to_string(readers); }
    std::string writer_text() const {
        return writer == Writer::kIdle ? "idle" : writer == Writer::kPaced ? "100k/s" : "live";
    }
};

/// What the live writer did, all samples together.
struct WriterLog {
    double operations = 0, seconds = 0;
};

/// The slowest of the readers. Reader i runs on CPU i, the writer on the last CPU.
Sample sample_company(Entrant& entrant, const Company& company, const Options& options,
                      std::vector<std::unique_ptr<Lane>>& lanes, WriterLog& log) {
    constexpr size_t kChunk = 64 * kBurst;
    std::vector<Hand> hands;
    const auto stream = entrant.stream();
    for (unsigned i = 0; i < company.readers; ++i)
        hands.push_back({options.cpu(i), [&, i](const std::atomic<bool>& stop) {
                             uint64_t done = 0, sum = 0;
                             size_t at = stream.size() / 2 * i / kChunk * kChunk;
                             do {  // at least one, however short the window became
                                 const size_t n = std::min(kChunk, stream.size() - at);
                                 sum += lanes[i]->run(stream.subspan(at, n));
                                 at = (at + n) % stream.size();
                                 done += n;
                             } while (!stop.load(std::memory_order_relaxed));
                             keep(sum);
                             return done;
                         }});
    const uint64_t every =
        company.writer == Writer::kPaced ? Clock::ticks_in(1e9 / kPacedPerSecond) : 0;
    if (company.writer != Writer::kIdle)
        hands.push_back({options.cpus.back(), [&](const std::atomic<bool>& stop) {
                             uint64_t done = 0;
                             uint64_t next = Clock::ticks();
                             while (!stop.load(std::memory_order_relaxed)) {
                                 if (Clock::ticks() < next) continue;
                                 next += every;
                                 entrant.translator().map_unmap(done++);
                             }
                             return done;
                         }});
    const auto outcomes = run_together(hands, options.pace.window_ns);
    Sample worst{0, 0};
    for (unsigned i = 0; i < company.readers; ++i) {
        worst.value = std::max(worst.value, outcomes[i].wall_each());
        worst.cpu = std::max(worst.cpu, outcomes[i].cpu_each());
    }
    if (company.writer != Writer::kIdle) {
        log.operations += double(outcomes.back().operations);
        log.seconds += outcomes.back().wall_ns / 1e9;
    }
    return worst;
}

Result<void> in_company(const Options& options, Results& results) {
    const std::vector<Company> companies{{1, Writer::kIdle},  {1, Writer::kPaced},
                                         {1, Writer::kLive},  {2, Writer::kIdle},
                                         {2, Writer::kPaced}, {2, Writer::kLive}};
    const std::vector<std::string> names{kSingle, kBurstOf, kMap};
    std::vector<uint64_t> sizes{64, 262144};
    if (options.all) sizes = {64, 4096, 262144, 1 << 20};
    if (options.pace.quick) sizes = {64};
    Table table{"readers and a live writer, random 4K",
                "ns per translation, slowest reader",
                {"mappings", "readers", "writer"},
                {},
                {}};
    for (const uint64_t size : sizes) {
        const auto workload = Workload::make(size, Pages::k4K, Order::kRandom);
        auto entrants = enter(names, workload);
        if (!entrants) return tl::unexpected(entrants.error());
        std::vector<Subject> subjects;
        std::vector<std::vector<std::unique_ptr<Lane>>> lanes(entrants->size());
        std::map<std::string, WriterLog> logs;
        for (size_t e = 0; e < entrants->size(); ++e)
            for (unsigned i = 0; i < 2; ++i)
                lanes[e].push_back((*entrants)[e]->translator().lane());
        const auto key = [](const Company& c, const std::string& name) {
            return name + "/" + c.readers_text() + c.writer_text();
        };
        for (const Company& company : companies)
            for (size_t e = 0; e < entrants->size(); ++e) {
                Entrant& entrant = *(*entrants)[e];
                const std::string id = key(company, entrant.name());
                subjects.push_back({id, [&, e, company, id] {
                                        return sample_company(*(*entrants)[e], company, options,
                                                              lanes[e], logs[id]);
                                    }});
            }
        Pace pace = options.pace;
        pace.seconds *= 3;  // many subjects, long samples
        const auto measured = measure(subjects, pace);
        for (const std::string& name : names)
            for (const Company& company : companies) {
                Row row{name,
                        {count_text(size), company.readers_text(), company.writer_text()},
                        find(measured, key(company, name))};
                const Measured& lone = find(measured, key(companies[0], name));
                row.baseline = "a lone reader, idle writer";
                row.ratio = row.measured.cpu->median / lone.cpu->median;
                row.measured.name = name;
                table.rows.push_back(std::move(row));
                if (company.writer == Writer::kLive) {
                    const WriterLog& log = logs[key(company, name)];
                    table.notes.push_back(fmt::format(
                        "{}, {} mappings: beside {} reader{} the writer did {:.0f} MAP + UNMAP per "
                        "second",
                        name, count_text(size), company.readers, company.readers > 1 ? "s" : "",
                        log.operations / log.seconds));
                }
            }
    }
    const size_t cpus = options.cpus.size();
    if (cpus < 3)
        table.notes.push_back(fmt::format(
            "3 threads on {} cores: time-sliced; ratios are of CPU time, not of wall time", cpus));

    Chart chart{"Readers and a live writer, 64 mappings",
                "readers, writer",
                cpus < 3 ? "ns of CPU time, slowest reader" : "ns, slowest reader",
                {}};
    for (const std::string& name : names) {
        Series series{name, {}, name == kMap};
        for (const Row& row : table.rows)
            if (row.subject == name && row.parameters[0] == "64")
                series.points.push_back(point(0, row.measured));
        chart.series.push_back(std::move(series));
    }
    for (const Company& c : companies)
        chart.labels.push_back(fmt::format("{}, {}", c.readers, c.writer_text()));
    results.charts.push_back(std::move(chart));

    const Row& row = table.row(kSingle, {"64", "2", "live"});
    const Row& paced = table.row(kSingle, {"64", "2", "100k/s"});
    results.targets.push_back(
        {"translate.company",
         "2 readers, live writer: each against a lone reader's rate, idle "
         "writer",
         ">= 0.95x",
         fmt::format("{:.2f}x; beside 100k MAP + UNMAP per second {:.2f}x{}", 1 / row.ratio,
                     1 / paced.ratio, cpus < 3 ? " (CPU time; 3 threads on 2 cores)" : ""),
         1 / row.ratio >= 0.95});
    report(results, std::move(table));
    return {};
}

}  // namespace

Result<void> run_translate(const Options& options, Results& results) {
    for (const auto part : {by_size, list_curve, by_shape, in_company})
        if (auto ok = part(options, results); !ok) return ok;
    return {};
}

}  // namespace viommu::perf
