// SPDX-License-Identifier: BSD-3-Clause
/// `dpdk-viommu-perf table`: what the writer's operations cost, and what mappings take.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "bench_table.hh"
#include "options.hh"

namespace viommu::perf {
namespace {

constexpr uint64_t kBase = uint64_t{1} << 40;

// --- by size -------------------------------------------------------------------------------------

constexpr const char* kMemset = "memset of 8 bytes per 4K";

struct Size {
    const char* name;
    uint64_t bytes;
    uint64_t askew;  ///< how far from a multiple of `bytes` the IOVAs lie
    unsigned count;  ///< of requests in a sample
};

/// Guest memory is never aligned as the IOVA is, which a leaf of this table does not need. A range
/// that is askew has small leaves at both ends: 2M all 512 of 4K, 1G 512 of 4K and 511 of 2M.
constexpr Size kSizes[] = {
    {"4K", kPage, 0, 256},
    {"64K", 16 * kPage, 0, 64},
    {"2M", kLargePage, 0, 256},
    {"2M askew", kLargePage, kPage, 16},
    {"1G", uint64_t{1} << 30, 0, 64},
    {"1G askew", uint64_t{1} << 30, kPage, 16},
};

Result<void> by_size(const Options& options, Results& results) {
    Table table{"one request, by size of the mapping; nodes that were used before",
                "ns per request",
                {"size"},
                {},
                {}};
    for (const Size& size : kSizes) {
        auto created = BenchTable::with_room_for(1 << 20);
        if (!created) return tl::unexpected(created.error());
        BenchTable& bench = *created;
        // What lies beside keeps the nodes above alive, as in a guest that uses its IOMMU.
        const uint64_t first = kBase + size.askew, gpa = kBase + 3 * kPage;
        bench.map(first - kPage, kPage, 0);
        bench.map(first + size.count * size.bytes, kPage, 0);
        const auto map_all = [&] {
            for (unsigned i = 0; i < size.count; ++i)
                bench.map(first + i * size.bytes, size.bytes, gpa + i * size.bytes);
        };
        const auto unmap_all = [&] {
            for (unsigned i = 0; i < size.count; ++i)
                bench.unmap(first + i * size.bytes, size.bytes);
        };
        std::vector<std::byte> memory(size.bytes / kPage * 8);
        const std::vector<Subject> subjects{
            {"MAP",
             [&] {
                 const Sample sample = time_per_operation(size.count, map_all);
                 unmap_all();
                 bench.wait_for_readers();
                 return sample;
             }},
            {"UNMAP",
             [&] {
                 map_all();
                 const Sample sample = time_per_operation(size.count, unmap_all);
                 bench.wait_for_readers();
                 return sample;
             }},
            {kMemset, [&] {
                 return time_per_operation(size.count, [&] {
                     for (unsigned i = 0; i < size.count; ++i) {
                         std::memset(memory.data(), 1, memory.size());
                         keep(memory.data());
                     }
                 });
             }}};
        const bool floor = size.bytes >= kLargePage;
        auto measured = measure(subjects, options.pace);
        if (!floor) measured.pop_back();
        table.add(measured, {size.name}, floor ? subjects.back().name : "");
    }
    const auto ratio = [&](const char* size) { return table.row("MAP", {size}).ratio; };
    results.targets.push_back(
        {"table.map_1g", "MAP of 1G, against memset of 8 bytes per 4K (2 MiB)", "<= 2x",
         fmt::format("{:.2f}x askew, {:.3f}x aligned; 2M askew (512 leaves of 4K) {:.1f}x",
                     ratio("1G askew"), ratio("1G"), ratio("2M askew")),
         ratio("1G askew") <= 2});
    Chart chart{"One request, by size", "", "ns", {}};
    for (const std::string name : {"MAP", "UNMAP", kMemset}) {
        Series series{name, {}, name == kMemset};
        for (const Size& size : kSizes) {
            const auto row = std::ranges::find_if(table.rows, [&](const Row& r) {
                return r.subject == name && r.parameters[0] == size.name;
            });
            if (row == table.rows.end()) {
                series.points.push_back({});
                continue;
            }
            const Summary& s = row->measured.value;
            series.points.push_back({0, s.median, s.p10, s.p90});
        }
        chart.series.push_back(std::move(series));
    }
    for (const Size& size : kSizes) chart.labels.push_back(size.name);
    results.charts.push_back(std::move(chart));
    report(results, std::move(table));
    return {};
}

// --- by number -----------------------------------------------------------------------------------

/// Where a sample's requests go: at odd pages, between the mappings that are there.
class Places {
  public:
    Places(uint64_t mappings, bool random) : slots_(std::max<uint64_t>(mappings, 512)) {
        while (std::min<uint64_t>(slots_, 1 << 16) > order_.size()) order_.push_back(next(random));
        std::sort(order_.begin(), order_.end());
        order_.erase(std::unique(order_.begin(), order_.end()), order_.end());
        if (!random) return;
        for (size_t i = order_.size(); i-- > 1;) std::swap(order_[i], order_[step() % (i + 1)]);
    }
    /// The next page for a MAP; none comes twice within a sample.
    uint64_t iova(size_t i) const { return (order_[(first_ + i) % order_.size()] * 2 + 1) * kPage; }
    void advance(size_t n) { first_ = (first_ + n) % order_.size(); }

  private:
    uint64_t step() {
        state_ = state_ * 6364136223846793005 + 1442695040888963407;
        return state_ >> 33;
    }
    uint64_t next(bool random) { return random ? step() % slots_ : order_.size(); }

    uint64_t slots_, state_ = 1;
    std::vector<uint64_t> order_;
    size_t first_ = 0;
};

/// The peers' shape, as translators.hh has it.
struct LockedMap {
    struct Entry {
        uint64_t last, gpa;
    };
    void map(uint64_t iova) {
        const std::unique_lock lock(mutex);
        entries.emplace(iova, Entry{iova + kPage - 1, iova});
    }
    void unmap(uint64_t iova) {
        const std::unique_lock lock(mutex);
        entries.erase(iova);
    }
    std::shared_mutex mutex;
    std::map<uint64_t, Entry> entries;
};

constexpr unsigned kPerSample = 256;

/// MAP and UNMAP of kPerSample pages, one of them timed.
template <class T, class Settle>
std::vector<Subject> map_and_unmap(T& target, Places& places, const std::string& map,
                                   const std::string& unmap, Settle settle) {
    const auto all = [&target, &places](void (T::*request)(uint64_t)) {
        for (unsigned i = 0; i < kPerSample; ++i) (target.*request)(places.iova(i));
    };
    const auto done = [&places, settle] {
        settle();
        places.advance(kPerSample);
    };
    return {{map,
             [=] {
                 const auto sample = time_per_operation(kPerSample, [&] { all(&T::map); });
                 all(&T::unmap);
                 done();
                 return sample;
             }},
            {unmap, [=] {
                 all(&T::map);
                 const auto sample = time_per_operation(kPerSample, [&] { all(&T::unmap); });
                 done();
                 return sample;
             }}};
}

/// BenchTable's requests for one page.
struct PageRequests {
    void map(uint64_t iova) { bench.map(iova, kPage, iova); }
    void unmap(uint64_t iova) { bench.unmap(iova, kPage); }
    BenchTable& bench;
};

Result<void> by_number(const Options& options, Results& results) {
    std::vector<uint64_t> sizes{1, 64, 4096, 65536, 1 << 20};
    if (options.all) sizes.push_back(1 << 24);
    if (options.pace.quick) sizes = {1, 4096};
    Table table{"one 4K request, by number of mappings that are there",
                "ns per request",
                {"mappings", "where"},
                {},
                {}};
    for (const uint64_t size : sizes) {
        auto created = BenchTable::with_room_for(size);
        if (!created) return tl::unexpected(created.error());
        LockedMap map;
        for (uint64_t i = 0; i < size; ++i) {
            created->map(i * 2 * kPage, kPage, i * kPage);
            map.entries.emplace_hint(map.entries.end(), i * 2 * kPage,
                                     LockedMap::Entry{i * 2 * kPage + kPage - 1, i});
        }
        PageRequests ours{*created};
        for (const bool random : {false, true}) {
            Places places(size, random), map_places(size, random);
            auto subjects =
                map_and_unmap(ours, places, "MAP", "UNMAP", [&] { created->wait_for_readers(); });
            for (auto& s :
                 map_and_unmap(map, map_places, "std::map insert", "std::map erase", [] {}))
                subjects.push_back(std::move(s));
            const auto all = measure(subjects, options.pace);
            const std::vector<std::string> parameters{count_text(size),
                                                      random ? "anywhere" : "side by side"};
            table.add({all[0], all[2]}, parameters, "std::map insert");
            table.add({all[1], all[3]}, parameters, "std::map erase");
        }
    }
    const auto median = [&](const char* subject, const char* where) -> const Row& {
        return table.row(subject, {count_text(sizes.back()), where});
    };
    const double map = median("MAP", "side by side").measured.value.median;
    const double unmap = median("UNMAP", "side by side").measured.value.median;
    results.targets.push_back(
        {"table.map_4k", "MAP or UNMAP of 4K in the table", "<= 100 ns",
         fmt::format("{} and {} ns among {} mappings; anywhere in them {} and {} ns",
                     number_text(map), number_text(unmap), count_text(sizes.back()),
                     number_text(median("MAP", "anywhere").measured.value.median),
                     number_text(median("UNMAP", "anywhere").measured.value.median)),
         std::max(map, unmap) <= 100});
    for (const char* where : {"side by side", "anywhere"}) {
        Chart chart{fmt::format("One 4K request, {}", where), "mappings there", "ns", {}};
        for (const char* name : {"MAP", "UNMAP", "std::map insert", "std::map erase"}) {
            Series series{name, {}, name[0] == 's'};
            for (const Row& row : table.rows)
                if (row.subject == name && row.parameters[1] == where) {
                    const Summary& s = row.measured.value;
                    series.points.push_back(
                        {parse_count(row.parameters[0]), s.median, s.p10, s.p90});
                }
            chart.series.push_back(std::move(series));
        }
        results.charts.push_back(std::move(chart));
    }
    report(results, std::move(table));
    return {};
}

// --- attach, detach, all of it -------------------------------------------------------------------

Result<void> domains(const Options& options, Results& results) {
    std::vector<uint32_t> counts{1, 1024};
    if (options.all) counts.push_back(65536);
    if (options.pace.quick) counts = {1};
    Table table{"ATTACH, DETACH, by number of domains that are there",
                "ns per request",
                {"domains"},
                {},
                {}};
    constexpr unsigned kCount = 64;
    for (const uint32_t count : counts) {
        table::Geometry geometry;
        geometry.max_domains = count + kCount + 2;
        geometry.max_endpoints = count + kCount + 2;
        geometry.arena_bytes = (uint64_t{count} + 1024) * 8192 + (uint64_t{64} << 20);
        auto created = table::Table::create(geometry);
        if (!created) return tl::unexpected(created.error());
        table::Table& t = **created;
        for (uint32_t i = 0; i < count + kCount; ++i)
            if (auto ok = t.add_endpoint(i); !ok) return tl::unexpected(ok.error());
        for (uint32_t i = 0; i < count; ++i)
            if (t.attach(i, i, false) != Status::kOk) return fail("ATTACH of {} failed", i);
        const uint32_t first = count;  // endpoints, and IDs of domains, that come and go
        const auto settle = [&] {
            const auto token = t.start_grace();
            while (!t.grace_over(token)) {
            }
        };
        bool right = true;
        const auto attach_new = [&] {
            for (uint32_t i = 0; i < kCount; ++i)
                right &= t.attach(first + i, first + i, false) == Status::kOk;
        };
        const auto attach_there = [&] {
            for (uint32_t i = 0; i < kCount; ++i)
                right &= t.attach(first + i, i % count, false) == Status::kOk;
        };
        const auto detach = [&](bool own) {
            for (uint32_t i = 0; i < kCount; ++i)
                right &= t.detach(first + i, own ? first + i : i % count) == Status::kOk;
        };
        const auto timed = [&](auto before, auto what, auto after) {
            before();
            const Sample sample = time_per_operation(kCount, what);
            after();
            settle();
            return sample;
        };
        const auto nothing = [] {};
        const auto measured =
            measure({{"ATTACH, makes a domain",
                      [&] { return timed(nothing, attach_new, [&] { detach(true); }); }},
                     {"DETACH, ends a domain",
                      [&] {
                          return timed(
                              attach_new, [&] { detach(true); }, nothing);
                      }},
                     {"ATTACH, to a domain that is there",
                      [&] { return timed(nothing, attach_there, [&] { detach(false); }); }},
                     {"DETACH, from one that stays",
                      [&] {
                          return timed(
                              attach_there, [&] { detach(false); }, nothing);
                      }},
                     {"ATTACH, from one to another",
                      [&] { return timed(attach_new, attach_there, [&] { detach(false); }); }},
                     {"grace period, nobody inside",
                      [&] {
                          return time_per_operation(kCount, [&] {
                              for (unsigned i = 0; i < kCount; ++i) settle();
                          });
                      }}},
                    options.pace);
        if (!right) return fail("an ATTACH or DETACH failed");
        table.add(measured, {count_text(count)});
    }
    report(results, std::move(table));
    return {};
}

/// One UNMAP of everything, of mappings that have a path of nodes each (doc/architecture.md, "The
/// table": no request costs more than a fixed number of steps).
Result<void> everything(const Options& options, Results& results) {
    Table table{
        "one UNMAP of 2^48 bytes, each mapping with nodes of its own", "ns", {"mappings"}, {}, {}};
    for (const uint64_t size : {16, 5000}) {
        if (options.pace.quick && size > 16) break;
        auto created = BenchTable::with_room_for(uint64_t{8} << 20);
        if (!created) return tl::unexpected(created.error());
        table.add(measure({{"UNMAP",
                            [&] {
                                for (uint64_t i = 1; i <= size; ++i)
                                    created->map(i << 34, kPage, 0);
                                const Sample sample = time_per_operation(
                                    1, [&] { created->unmap(0, uint64_t{1} << 48); });
                                created->wait_for_readers();
                                return sample;
                            }}},
                          options.pace),
                  {std::to_string(size)});
    }
    report(results, std::move(table));
    return {};
}

// --- memory --------------------------------------------------------------------------------------

double resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    double total = 0, resident = 0;
    statm >> total >> resident;
    return resident * double(sysconf(_SC_PAGESIZE));
}

double file_bytes(int fd) {
    struct stat s {};
    return fstat(fd, &s) == 0 ? double(s.st_blocks) * 512 : 0;
}

Result<void> memory(const Options& options, Results& results) {
    std::vector<uint64_t> sizes{65536, 1 << 20};
    if (options.all) sizes.push_back(1 << 24);
    if (options.pace.quick) sizes = {65536};
    Table table{"memory, dense 4K mappings", "bytes per mapping", {"mappings"}, {}, {}};
    double arena = 0, both = 0;
    for (const uint64_t size : sizes) {
        const double before = resident_bytes();
        auto created = BenchTable::with_room_for(size);
        if (!created) return tl::unexpected(created.error());
        for (uint64_t i = 0; i < size; ++i) created->map(i * kPage, kPage, (size - i) * 2 * kPage);
        arena = file_bytes(created->table().arena().fd()) / double(size);
        both = (resident_bytes() - before) / double(size);
        table.add({{"arena, as the kernel counts its pages", summarize({arena})},
                   {"and what only the writer has (resident set)", summarize({both})}},
                  {count_text(size)});
    }
    results.targets.push_back(
        {"table.memory", "memory for a dense 4K mapping", "<= 9 bytes",
         fmt::format("{:.2f} bytes; with the writer's own {:.2f} ({} mappings)", arena, both,
                     count_text(sizes.back())),
         arena <= 9});
    report(results, std::move(table));
    return {};
}

}  // namespace

Result<void> run_table(const Options& options, Results& results) {
    // Memory first: the heap is still small, and what is freed is given back.
    for (const auto part : {memory, by_size, by_number, domains, everything, run_quiescence})
        if (auto ok = part(options, results); !ok) return ok;
    return {};
}

}  // namespace viommu::perf
