// SPDX-License-Identifier: BSD-3-Clause
/// What the table costs, beside what its peers do, in one run:
///
///   BM_translate_*  one translation in a section of 32, random or one hot page, N mappings of 4K
///   BM_mutex_map_*  the same question to a shared_mutex and a std::map (Cloud Hypervisor's shape)
///   BM_section      enter and leave
///   BM_map_unmap    one 4K MAP and one UNMAP, grace period included, no reader inside
#include <benchmark/benchmark.h>

#include <map>
#include <mutex>
#include <random>
#include <shared_mutex>

#include "viommu_xlate.hh"

namespace viommu {
namespace {

constexpr uint64_t kPage = 4096;
constexpr EndpointId kEndpoint = 8;
constexpr unsigned kBurst = 32;

/// IOVAs to ask for: `hot` from one 2 MiB window, else from everywhere. A power of two of them.
std::vector<uint64_t> questions(uint64_t mappings, bool hot) {
    std::mt19937_64 rng(1);
    std::vector<uint64_t> iovas(1u << 16);
    for (uint64_t& iova : iovas)
        iova = rng() % (hot ? std::min<uint64_t>(mappings, 512) : mappings) * kPage + 64;
    return iovas;
}

struct Setup {
    explicit Setup(uint64_t mappings) {
        table->attach(kEndpoint, 1, false);
        for (uint64_t i = 0; i < mappings; ++i)
            if (table->map(1, *IovaRange::from_length({i * kPage}, kPage),
                           {(mappings - i) * 2 * kPage}, Access::kReadWrite) != Status::kOk)
                std::abort();
    }
    static std::unique_ptr<table::Table> make_table() {
        auto t = table::Table::create(
            {.max_mappings = 1u << 21, .arena_bytes = uint64_t{256} << 20});
        if (!t || !(*t)->add_endpoint(kEndpoint)) std::abort();
        return std::move(*t);
    }
    std::unique_ptr<table::Table> table = make_table();
    xlate::FaultQueue faults;
    xlate::Reader reader = std::move(*xlate::Reader::create(*table, faults, kEndpoint));
};

void translate(benchmark::State& state, bool hot) {
    Setup setup(uint64_t(state.range(0)));
    const auto iovas = questions(uint64_t(state.range(0)), hot);
    size_t at = 0;
    uint64_t sum = 0;
    for (auto _ : state) {
        setup.reader.enter();
        for (unsigned i = 0; i < kBurst; ++i)
            sum += setup.reader.translate({iovas[at++ % iovas.size()]}, 64, Access::kRead)
                       .gpa()
                       .value;
        setup.reader.leave();
    }
    benchmark::DoNotOptimize(sum);
    state.SetItemsProcessed(int64_t(state.iterations() * kBurst));
}

void mutex_map(benchmark::State& state, bool hot) {
    struct Mapping {
        uint64_t last, gpa;
    };
    const auto mappings = uint64_t(state.range(0));
    std::map<uint64_t, Mapping> map;
    for (uint64_t i = 0; i < mappings; ++i)
        map[i * kPage] = {i * kPage + kPage - 1, (mappings - i) * 2 * kPage};
    std::shared_mutex mutex;
    const auto iovas = questions(mappings, hot);
    size_t at = 0;
    uint64_t sum = 0;
    for (auto _ : state)
        for (unsigned i = 0; i < kBurst; ++i) {
            const uint64_t iova = iovas[at++ % iovas.size()];
            const std::shared_lock lock(mutex);
            auto it = map.upper_bound(iova);
            if (it == map.begin()) continue;
            --it;
            if (iova <= it->second.last) sum += it->second.gpa + (iova - it->first);
        }
    benchmark::DoNotOptimize(sum);
    state.SetItemsProcessed(int64_t(state.iterations() * kBurst));
}

void section(benchmark::State& state) {
    Setup setup(1);
    for (auto _ : state) {
        setup.reader.enter();
        setup.reader.leave();
    }
}

void map_unmap(benchmark::State& state) {
    Setup setup(uint64_t(state.range(0)));
    const auto range = *IovaRange::from_length({uint64_t{1} << 40}, kPage);
    setup.table->map(1, *IovaRange::from_length({(uint64_t{1} << 40) + kPage}, kPage), {0},
                     Access::kRead);  // a neighbour: the node stays
    for (auto _ : state) {
        setup.table->map(1, range, {kPage}, Access::kReadWrite);
        setup.table->unmap(1, range);
        while (!setup.table->grace_over(setup.table->start_grace())) {
        }
    }
}

/// One UNMAP of everything, of mappings that have a path of nodes each.
void unmap_all(benchmark::State& state) {
    const auto mappings = uint64_t(state.range(0));
    Setup setup(1);
    for (auto _ : state) {
        state.PauseTiming();
        for (uint64_t i = 1; i <= mappings; ++i)
            if (setup.table->map(1, *IovaRange::from_length({i << 34}, kPage), {0},
                                 Access::kRead) != Status::kOk)
                state.SkipWithError("not mapped");
        state.ResumeTiming();
        setup.table->unmap(1, {{0}, {(uint64_t{1} << 48) - 1}});
        while (!setup.table->grace_over(setup.table->start_grace())) {
        }
    }
}

void BM_translate_hot(benchmark::State& s) { translate(s, true); }
void BM_translate_random(benchmark::State& s) { translate(s, false); }
void BM_mutex_map_hot(benchmark::State& s) { mutex_map(s, true); }
void BM_mutex_map_random(benchmark::State& s) { mutex_map(s, false); }

BENCHMARK(BM_translate_hot)->Arg(64)->Arg(1 << 20);
BENCHMARK(BM_mutex_map_hot)->Arg(64)->Arg(1 << 20);
BENCHMARK(BM_translate_random)->Arg(1 << 12)->Arg(1 << 20);
BENCHMARK(BM_mutex_map_random)->Arg(1 << 12)->Arg(1 << 20);
BENCHMARK(section)->Name("BM_section");
BENCHMARK(map_unmap)->Name("BM_map_unmap")->Arg(64)->Arg(1 << 20);
BENCHMARK(unmap_all)->Name("BM_unmap_all")->Arg(16)->Arg(5000)->Iterations(20);

}  // namespace
}  // namespace viommu

BENCHMARK_MAIN();
