// SPDX-License-Identifier: BSD-3-Clause
/// Tables of mappings that can be asked where an address lies: ours, and what others do instead.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "viommu_base.hh"
#include "workload.hh"

namespace viommu::perf {

/// A thread that asks.
class Lane {
  public:
    virtual ~Lane() = default;
    /// Ask all of `questions` (a multiple of kBurst), a burst at a time, in the way of a data
    /// plane: what the subject does to keep a writer out, it does once per burst. Returns the sum
    /// of the answers, by which wrong ones are noticed.
    virtual uint64_t run(std::span<const uint32_t> questions) = 0;
};

/// Threads: map_unmap() one, lane() a control thread, each Lane one.
class Translator {
  public:
    virtual ~Translator() = default;
    virtual std::unique_ptr<Lane> lane() = 0;
    /// MAP one page that nobody asks about, UNMAP it again, and wait until nobody uses it.
    /// `i`: which of a few.
    virtual void map_unmap(uint64_t i) = 0;
};

/// How a subject of lib/table is asked.
enum class Way : uint8_t {
    kSingle,  ///< Reader::translate()
    kHuge,    ///< the same, the arena on hugepages of 2 MiB
    kBurst,   ///< Reader::translate_burst()
    kWalk,    ///< from the root of the same tree, every level each time: no walk cache
};

/// lib/table and lib/xlate. Errors: those of the table.
Result<std::unique_ptr<Translator>> make_ours(const Workload& workload, Way way);

/// std::shared_mutex and std::map: Cloud Hypervisor's shape (an RwLock and a BTreeMap).
std::unique_ptr<Translator> make_map(const Workload& workload);

/// rte_rwlock and a sorted TAILQ, walked from its head: librte_vhost's IOTLB, at most 2048 entries
/// (lib/vhost/iotlb.c of DPDK 22.11, vhost_user_iotlb_cache_find).
std::unique_ptr<Translator> make_list(const Workload& workload);
inline constexpr uint64_t kMaxListEntries = 2048;

/// No table at all: what the loop and the questions cost.
std::unique_ptr<Translator> make_nothing();

/// The sum that every Lane must return.
uint64_t expected_sum(const Workload& workload);

}  // namespace viommu::perf
