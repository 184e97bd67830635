// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rte_rcu_qsbr.h>

#include <cassert>
#include <mutex>
#include <vector>

#include "reader_pages.hh"
#include "section.hh"
#include "viommu_base.hh"

namespace viommu::table {

/// Who is inside a section: threads of this process by rte_rcu_qsbr, whose readers are offline
/// between sections, and threads of other processes by their pages. Both count with one token.
///
/// A slot belongs to one thread at a time. The writer starts a grace period and asks, without
/// blocking, whether it is over: when every slot that was in a section at the start has left it.
class Readers final : private SlotOwner {
  public:
    using Token = uint64_t;

    /// `shared_token`: ArenaHeader::reader_token, where other processes read the token.
    Readers(unsigned max_slots, AtomicWord& shared_token);
    ~Readers();
    Readers(const Readers&) = delete;
    Readers& operator=(const Readers&) = delete;

    /// A slot for a thread of this process. Threads: control. Errors: all slots are taken.
    Result<Section> take();
    /// Those of other processes.
    ReaderPages& pages() noexcept { return pages_; }
    const ReaderPages& pages() const noexcept { return pages_; }
    /// Of the last grace period. Threads: any.
    Token token() const noexcept { return shared_token_.load(std::memory_order_relaxed); }

    /// Begin to wait for the sections that are open now. Stores made before are visible to every
    /// section that the returned token does not wait for. Threads: the writer.
    Token start_grace() noexcept {
        // rte_rcu_qsbr_start() is a release increment: it does not order the caller's earlier
        // stores before its later loads of the readers' counters. This fence does, and pairs with
        // the one at the end of Section::enter(). (Q3 pairs Q1)
        full_fence();
        const Token token = rte_rcu_qsbr_start(qsbr_);
        assert(token == shared_token_.load(std::memory_order_relaxed) + 1);
        shared_token_.store(token, std::memory_order_release);  // Q5 pairs Section::enter()
        return token;
    }
    /// Never blocks. Threads: the writer.
    bool grace_over(Token token) noexcept {
        return rte_rcu_qsbr_check(qsbr_, token, false) == 1 && pages_.passed(token);
    }

  private:
    void give_back(unsigned slot) noexcept override;

    rte_rcu_qsbr* qsbr_;
    AtomicWord& shared_token_;
    ReaderPages pages_;
    std::mutex mutex_;  // of taken_, control path only
    std::vector<bool> taken_;
};

}  // namespace viommu::table
