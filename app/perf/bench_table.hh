// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>

#include "viommu_xlate.hh"
#include "workload.hh"

namespace viommu::perf {

/// A table with one endpoint, attached to one domain, ready to be written.
class BenchTable {
  public:
    static constexpr EndpointId kEndpoint = 8;
    static constexpr DomainId kDomain = 1;

    static Result<BenchTable> create(const table::Geometry& geometry);
    /// With room for `mappings` of 4K, at most two leaves' width apart.
    static Result<BenchTable> with_room_for(uint64_t mappings,
                                            table::Hugepages hugepages = table::Hugepages::kNever);

    /// Of 2 MiB, that with_room_for() takes.
    static uint64_t hugepages_for(uint64_t mappings) { return (arena_for(mappings) >> 21) + 1; }

    table::Table& table() { return *table_; }
    Result<xlate::Reader> reader() { return xlate::Reader::create(*table_, *faults_, kEndpoint); }

    /// Errors abort: they would be a mistake of the benchmark, in the middle of a measurement.
    void map(uint64_t iova, uint64_t bytes, uint64_t gpa);
    void unmap(uint64_t iova, uint64_t bytes);
    /// Nobody is inside, or somebody will leave soon. Gives the CPU away when it takes long.
    void wait_for_readers();

  private:
    static uint64_t arena_for(uint64_t mappings) { return mappings * 17 + (uint64_t{16} << 20); }

    BenchTable() = default;
    std::unique_ptr<table::Table> table_;
    std::unique_ptr<xlate::FaultQueue> faults_ = std::make_unique<xlate::FaultQueue>();
};

}  // namespace viommu::perf
