// SPDX-License-Identifier: BSD-3-Clause
/// How long an UNMAP waits: from start_grace() until grace_over(), beside readers at full rate.
#include <fmt/format.h>

#include <algorithm>

#include "bench_table.hh"
#include "crew.hh"
#include "options.hh"

namespace viommu::perf {
namespace {

/// Of more samples than these the later ones are left out.
constexpr size_t kMostSamples = 1 << 20;
constexpr double kAllowance_ns = 2000;  ///< design.md 10: "p99 <= one burst + 2 us"
constexpr uint64_t kWriterFirst = uint64_t{1} << 46;

/// Bursts at full rate; how long each took, from before enter() until after leave().
uint64_t read_bursts(xlate::Reader& reader, const Workload& workload, const std::atomic<bool>& stop,
                     std::vector<double>& bursts) {
    uint64_t n = 0, sum = 0;
    size_t at = 0;
    bursts.reserve(kMostSamples);
    do {
        const uint64_t start = Clock::ticks();
        reader.enter();
        for (size_t i = 0; i < kBurst; ++i)
            sum += reader
                       .translate({Workload::iova(workload.stream[at + i])}, kAccessBytes,
                                  Access::kRead)
                       .gpa()
                       .value;
        reader.leave();
        const uint64_t ticks = Clock::ticks() - start;
        if (bursts.size() < kMostSamples) bursts.push_back(Clock::ns(ticks));
        at = (at + kBurst) % workload.stream.size();
        ++n;
    } while (!stop.load(std::memory_order_relaxed));
    keep(sum);
    return n;
}

uint64_t unmap_and_wait(BenchTable& bench, const std::atomic<bool>& stop,
                        std::vector<double>& waits) {
    uint64_t n = 0;
    waits.reserve(kMostSamples);
    do {
        const uint64_t iova = kWriterFirst + n % 511 * kPage;
        bench.map(iova, kPage, kPage);
        bench.unmap(iova, kPage);
        const uint64_t start = Clock::ticks();
        bench.wait_for_readers();
        const uint64_t ticks = Clock::ticks() - start;
        if (waits.size() < kMostSamples) waits.push_back(Clock::ns(ticks));
        ++n;
    } while (!stop.load(std::memory_order_relaxed));
    return n;
}

}  // namespace

Result<void> run_quiescence(const Options& options, Results& results) {
    std::vector<uint64_t> sizes{64, 1 << 20};
    if (options.pace.quick) sizes = {64};
    const double window_ns = options.pace.quick ? 50e6 : options.pace.seconds * 0.5e9;
    const size_t cpus = options.cpus.size();
    Table table{"UNMAP waits for readers (bursts of 32, random 4K, at full rate)",
                "ns",
                {"mappings", "readers"},
                {},
                {}};
    bool met = true;
    std::string said;
    for (const uint64_t size : sizes)
        for (const unsigned readers : {0u, 1u, 2u}) {
            const auto workload = Workload::make(size, Pages::k4K, Order::kRandom);
            auto bench = BenchTable::with_room_for(size);
            if (!bench) return tl::unexpected(bench.error());
            for (const Mapped& m : workload.mapped) bench->map(m.iova, m.bytes, m.gpa);
            bench->map(kWriterFirst + 511 * kPage, kPage, 0);  // its node stays
            std::vector<xlate::Reader> lanes;
            std::vector<std::vector<double>> bursts(readers);
            std::vector<double> waits;
            std::vector<Hand> hands{{options.cpu(0), [&](const std::atomic<bool>& stop) {
                                         return unmap_and_wait(*bench, stop, waits);
                                     }}};
            for (unsigned i = 0; i < readers; ++i) {
                auto reader = bench->reader();
                if (!reader) return tl::unexpected(reader.error());
                lanes.push_back(std::move(*reader));
            }
            for (unsigned i = 0; i < readers; ++i)
                hands.push_back({options.cpu(i + 1), [&, i](const std::atomic<bool>& stop) {
                                     return read_bursts(lanes[i], workload, stop, bursts[i]);
                                 }});
            run_together(hands, window_ns);

            std::vector<double> all_bursts;
            for (const auto& b : bursts) all_bursts.insert(all_bursts.end(), b.begin(), b.end());
            const Measured wait{"UNMAP waits", summarize(waits), {}, tail_of(waits)};
            const std::vector<std::string> parameters{count_text(size), std::to_string(readers)};
            if (readers == 0) {
                table.add({wait}, parameters);
                continue;
            }
            const Measured burst{"one burst", summarize(all_bursts), {}, tail_of(all_bursts)};
            table.add({wait, burst}, parameters, "one burst");
            if (readers + 1 > cpus) continue;  // time-sliced: says nothing about the protocol
            const double limit = burst.value.median + kAllowance_ns;
            met &= wait.tail->p99 <= limit;
            said += fmt::format("{}p99 {} ns; limit {} + 2000 ns ({} mappings)",
                                said.empty() ? "" : "; ", number_text(wait.tail->p99),
                                number_text(burst.value.median), count_text(size));
        }
    if (cpus < 3)
        table.notes.push_back(fmt::format(
            "2 readers: 3 threads on {} cores: time-sliced; a wait can last until the reader runs "
            "again",
            cpus));
    if (!said.empty())
        results.targets.push_back({"table.wait", "UNMAP waiting for readers at full rate",
                                   "p99 <= one burst + 2 us", said, met});
    Chart chart{"An UNMAP waits for one reader at full rate", "", "ns", {}};
    for (const char* name : {"UNMAP waits", "one burst"}) {
        Series series{name, {}, std::string(name) == "one burst"};
        for (const uint64_t size : sizes) {
            const Measured& m = table.row(name, {count_text(size), "1"}).measured;
            for (const double v : {m.value.median, m.tail->p99, m.tail->p999, m.tail->max})
                series.points.push_back({0, v, v, v});
        }
        chart.series.push_back(std::move(series));
    }
    for (const uint64_t size : sizes)
        for (const char* q : {"median", "p99", "p99.9", "max"})
            chart.labels.push_back(fmt::format("{} {}", count_text(size), q));
    chart.x_label = "mappings, quantile";
    results.charts.push_back(std::move(chart));
    report(results, std::move(table));
    return {};
}

}  // namespace viommu::perf
