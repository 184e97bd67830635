// SPDX-License-Identifier: BSD-3-Clause
#include "readers.hh"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace viommu::table {

Readers::Readers(unsigned max_slots, AtomicWord& shared_token)
    : shared_token_(shared_token), taken_(std::max(1u, max_slots), false) {
    const size_t bytes = rte_rcu_qsbr_get_memsize(unsigned(taken_.size()));
    void* memory = std::aligned_alloc(RTE_CACHE_LINE_SIZE, RTE_ALIGN(bytes, RTE_CACHE_LINE_SIZE));
    if (memory == nullptr) throw std::bad_alloc();
    qsbr_ = static_cast<rte_rcu_qsbr*>(memory);
    rte_rcu_qsbr_init(qsbr_, unsigned(taken_.size()));
    shared_token_.store(__atomic_load_n(&qsbr_->token, __ATOMIC_RELAXED), std::memory_order_relaxed);
}

Readers::~Readers() { std::free(qsbr_); }

Result<Section> Readers::take() {
    const std::lock_guard lock(mutex_);
    const auto free = std::find(taken_.begin(), taken_.end(), false);
    if (free == taken_.end())
        return fail("all {} reader slots of the table are taken: raise max_readers", taken_.size());
    *free = true;
    const auto slot = unsigned(free - taken_.begin());
    rte_rcu_qsbr_thread_register(qsbr_, slot);
    return Section(qsbr_, slot, *this);
}

void Readers::give_back(unsigned slot) noexcept {
    const std::lock_guard lock(mutex_);
    rte_rcu_qsbr_thread_unregister(qsbr_, slot);
    taken_[slot] = false;
}

}  // namespace viommu::table
