// SPDX-License-Identifier: BSD-3-Clause
#include "bench_table.hh"

#include <sched.h>

#include <cstdio>
#include <cstdlib>

namespace viommu::perf {
namespace {

void must(Status status, const char* what) {
    if (status == Status::kOk) return;
    std::fprintf(stderr, "dpdk-viommu-perf: %s in the middle of a benchmark: %s\n", what,
                 to_string(status));
    std::abort();
}

}  // namespace

Result<BenchTable> BenchTable::create(const table::Geometry& geometry) {
    BenchTable b;
    auto table = table::Table::create(geometry);
    if (!table) return tl::unexpected(table.error());
    b.table_ = std::move(*table);
    if (auto ok = b.table_->add_endpoint(kEndpoint); !ok) return tl::unexpected(ok.error());
    must(b.table_->attach(kEndpoint, kDomain, false), "ATTACH");
    return b;
}

Result<BenchTable> BenchTable::with_room_for(uint64_t mappings, table::Hugepages hugepages) {
    table::Geometry geometry;
    geometry.max_mappings = mappings + 65536;
    geometry.arena_bytes = arena_for(mappings);
    geometry.hugepages = hugepages;
    return create(geometry);
}

void BenchTable::map(uint64_t iova, uint64_t bytes, uint64_t gpa) {
    must(table_->map(kDomain, *IovaRange::from_length({iova}, bytes), {gpa}, Access::kReadWrite),
         "MAP");
}

void BenchTable::unmap(uint64_t iova, uint64_t bytes) {
    must(table_->unmap(kDomain, *IovaRange::from_length({iova}, bytes)), "UNMAP");
}

void BenchTable::wait_for_readers() {
    const auto token = table_->start_grace();
    for (unsigned tries = 0; !table_->grace_over(token);)
        if (++tries > 1000) sched_yield();  // the reader may be waiting for this CPU
}

}  // namespace viommu::perf
