// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>

#include "chain.hh"
#include "viommu_wire.hh"
#include "vring.hh"

namespace viommu::virtq {

enum class Pop {
    kEmpty,      ///< nothing is available
    kChain,      ///< a chain was taken
    kMalformed,  ///< a chain was taken that breaks the spec: push(chain.taken(), 0)
    kFault,      ///< a chain was taken whose indirect table could not be resolved: the same
    kBroken,     ///< the ring makes no sense; nothing is taken any more until start_at*()
};

/// Where a queue ended and what it wrote there last, to tell whether a ring that is started again
/// is that one. Plain data: it may be stored.
struct Mark {
    uint32_t base = 0;  ///< next_base()
    uint32_t at = 0;    ///< split: index of the last used element; packed: its place in the ring
    uint64_t last = 0;  ///< the element as it lies there

    friend bool operator==(const Mark&, const Mark&) = default;
};

struct QueueStats {
    Counter broken;         ///< times that the ring made no sense
    Counter signals;        ///< signals that were wanted
    Counter signal_errors;  ///< and could not be sent
};

/// What both ring formats have in common.
class QueueBase {
  public:
    explicit QueueBase(QueueStats* stats = nullptr) noexcept
        : stats_(stats == nullptr ? own_stats_ : *stats) {}
    QueueBase(const QueueBase&) = delete;
    QueueBase& operator=(const QueueBase&) = delete;

    uint32_t size() const noexcept { return size_; }
    bool broken() const noexcept { return broken_; }

    /// Signal the guest. A system call: do not make it inside a reader's section. Touches no guest
    /// memory; the queue need not be bound. Errors are counted: the guest can always poll.
    void signal() noexcept {
        if (call_fd_ < 0) return;
        const uint64_t one = 1;
        stats_.signals.add();
        if (write(call_fd_, &one, sizeof one) != sizeof one) stats_.signal_errors.add();
    }
    /// Threads: any.
    const QueueStats& stats() const noexcept { return stats_; }

    // A word of a ring. Who writes one says so by wrote() afterwards, or uses store().
    template <class T, int kOrder = __ATOMIC_RELAXED>
    static T load(const std::byte* p) noexcept {
        return __atomic_load_n(reinterpret_cast<const T*>(p), kOrder);
    }
    template <class T, int kOrder = __ATOMIC_RELAXED>
    static void put(std::byte* p, T v) noexcept {
        __atomic_store_n(reinterpret_cast<T*>(p), v, kOrder);
    }

  protected:
    /// put() and wrote().
    template <class T, int kOrder = __ATOMIC_RELAXED>
    void store(std::byte* p, T v) const noexcept {
        put<T, kOrder>(p, v);
        wrote(p, sizeof v);
    }
    /// For what put() wrote.
    void wrote(const std::byte* p, size_t bytes) const noexcept {
        if (log_ != nullptr) [[unlikely]]
            log_->wrote(p, bytes);
    }

    template <AddressSpace Space>
    void bound_to(const Space& space, const Vring& vring, uint64_t features) noexcept {
        log_ = dirty_log_of(space);
        size_ = vring.size;
        call_fd_ = vring.call_fd;
        event_idx_ = negotiated(features, wire::VIRTIO_F_EVENT_IDX);
    }
    Pop fail_ring() noexcept {
        broken_ = true;
        stats_.broken.add();
        return Pop::kBroken;
    }

    const DirtyLog* log_ = nullptr;  // of the space; null: nobody wants to know
    uint32_t size_ = 0;
    /// Split: used elements; packed: slots; that were published since needs_signal() was asked.
    uint32_t unsignalled_ = 0;
    bool broken_ = false;
    bool event_idx_ = false;
    int call_fd_ = -1;

  private:
    QueueStats own_stats_;

  protected:
    QueueStats& stats_;
};

}  // namespace viommu::virtq
