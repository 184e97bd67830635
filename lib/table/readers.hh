// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rte_rcu_qsbr.h>

#include <mutex>
#include <vector>

#include "viommu_base.hh"

namespace viommu::table {

/// Who is inside a section: rte_rcu_qsbr, whose readers are offline between sections.
///
/// A slot belongs to one thread at a time. The writer starts a grace period and asks, without
/// blocking, whether it is over: when every slot that was in a section at the start has left it.
class Readers {
  public:
    using Token = uint64_t;

    explicit Readers(unsigned max_slots);
    ~Readers();
    Readers(const Readers&) = delete;
    Readers& operator=(const Readers&) = delete;

    /// Threads: control. Errors: all slots are taken.
    Result<unsigned> take_slot();
    /// Threads: control; the slot is not in a section.
    void give_back(unsigned slot);

    /// Threads: the slot's owner. Everything read after enter() is covered until leave().
    void enter(unsigned slot) noexcept { rte_rcu_qsbr_thread_online(qsbr_, slot); }    // Q1
    void leave(unsigned slot) noexcept { rte_rcu_qsbr_thread_offline(qsbr_, slot); }   // Q2

    /// Begin to wait for the sections that are open now. Stores made before are visible to every
    /// section that the returned token does not wait for. Threads: the writer.
    Token start_grace() noexcept {
        // rte_rcu_qsbr_start() is a release increment: it does not order the caller's earlier
        // stores before its later loads of the readers' counters. This fence does, and pairs with
        // the one at the end of rte_rcu_qsbr_thread_online(). (Q3 pairs Q1)
        rte_atomic_thread_fence(__ATOMIC_SEQ_CST);
        return rte_rcu_qsbr_start(qsbr_);
    }
    /// Never blocks. Threads: the writer.
    bool grace_over(Token token) noexcept { return rte_rcu_qsbr_check(qsbr_, token, false) == 1; }

  private:
    rte_rcu_qsbr* qsbr_;
    std::mutex mutex_;  // of taken_, control path only
    std::vector<bool> taken_;
};

}  // namespace viommu::table
