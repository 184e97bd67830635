// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rte_rcu_qsbr.h>

#include <utility>

#include "reader_page.hh"

namespace viommu::table {

/// Whoever lends reader slots to Sections. Outlives them.
class SlotOwner {
  public:
    /// Threads: control; the slot is in no section.
    virtual void give_back(unsigned slot) noexcept = 0;

  protected:
    ~SlotOwner() = default;
};

/// One thread's right to open sections: a reader slot of the writer's process (rte_rcu_qsbr), or of
/// a page that the writer looks into (ReaderPage). The protocol is the same:
///
///     enter:  count := token, full fence        leave:  count := 0, release
///
/// Why not rte_rcu_qsbr in the page as well: rte_rcu_qsbr_check() believes the sizes and thread
/// numbers that stand in the shared memory, and there a reader process could write them.
///
/// Threads: made and destroyed by a control thread while no section is open; enter() and leave() by
/// the one thread that owns it. Sections do not nest.
class Section {
  public:
    /// A slot in the writer's process, registered with `qsbr`.
    Section(rte_rcu_qsbr* qsbr, unsigned slot, SlotOwner& owner) noexcept
        : qsbr_(qsbr), owner_(&owner), slot_(slot) {}
    /// A slot of another process's page, marked as taken there. `token`: the arena's.
    Section(const AtomicWord& token, ReaderPage& page, unsigned slot, SlotOwner& owner) noexcept
        : token_(&token), count_(&page.slots[slot].count), owner_(&owner), slot_(slot) {}
    Section(Section&& other) noexcept
        : qsbr_(other.qsbr_),
          token_(other.token_),
          count_(other.count_),
          owner_(std::exchange(other.owner_, nullptr)),
          slot_(other.slot_) {}
    Section& operator=(Section&&) = delete;
    ~Section() {
        if (owner_ != nullptr) owner_->give_back(slot_);
    }

    /// Everything read after it is covered until leave().
    void enter() noexcept {
        if (qsbr_ != nullptr) {
            rte_rcu_qsbr_thread_online(qsbr_, slot_);  // Q1 pairs Q3
            return;
        }
        // A token is believed to be seen with all that was removed before it: acquire. (Q5 pairs
        // the store in Readers::start_grace())
        count_->store(token_->load(std::memory_order_acquire), std::memory_order_relaxed);
        full_fence();  // Q1 pairs Q3
    }
    void leave() noexcept {
        if (qsbr_ != nullptr)
            rte_rcu_qsbr_thread_offline(qsbr_, slot_);  // Q2 pairs Q4
        else
            count_->store(0, std::memory_order_release);  // Q2 pairs Q4
    }

  private:
    rte_rcu_qsbr* qsbr_ = nullptr;
    const AtomicWord* token_ = nullptr;
    AtomicWord* count_ = nullptr;
    SlotOwner* owner_;
    unsigned slot_;
};

}  // namespace viommu::table
