// SPDX-License-Identifier: BSD-3-Clause
/// The device side of one split virtqueue (virtio 1.3, 2.7).
///
///     virtq::GpaSpace space(memory);                         // memory outlives the binding
///     virtq::SplitQueue<virtq::GpaSpace> queue;
///     if (!queue.bind(space, vring)) return;                 // vring: addresses of that space
///     queue.start_at(vring.base);                            // or start_at_used()
///     queue.enable_notifications(false);                     // we poll
///     ...
///     virtq::Chain chain;                                    // 16 KiB: a member, not a local
///     while (queue.pop(chain) == virtq::Pop::kChain) {       // bound the burst
///         auto in = queue.gather(chain.readable(), request);
///         auto out = queue.scatter(reply, chain.writable());
///         queue.push(chain.head(), out.bytes);
///     }                                                      // kMalformed, kFault: push(head, 0)
///     queue.complete();                                      // publish, and signal when wanted
///     if (queue.arm()) ... sleep on vring.kick_fd ...; queue.enable_notifications(false);
///
/// Threads: one, the owner's; binding and starting may be done by another while that one is away.
/// Guest:   every ring field is read once, atomically or into a copy, and checked before use.
/// Orders:  the partner of every V* below is the guest's driver; virtio 1.3, 2.7.13 and 2.7.14.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "chain.hh"
#include "ring_part.hh"
#include "viommu_wire.hh"
#include "vring.hh"

namespace viommu::virtq {

enum class Pop {
    kEmpty,      ///< nothing is available
    kChain,      ///< a chain was taken
    kMalformed,  ///< a chain was taken that breaks the spec: push(head, 0)
    kFault,      ///< a chain was taken whose indirect table could not be resolved: push(head, 0)
    kBroken,     ///< the ring makes no sense; nothing is taken any more until start_at*()
};

template <AddressSpace Space>
class SplitQueue {
  public:
    /// Find the ring in our memory. `vring` has addresses of `space`, which stays until unbind().
    ///
    /// What was taken so far is kept, so that a ring can be bound again where it was.
    /// Errors: false when the ring is not acceptable or cannot be resolved; then the queue is not
    ///         bound. Nothing in guest memory is touched in either case.
    bool bind(Space& space, const Vring& vring) noexcept;
    void unbind() noexcept { space_ = nullptr; }
    /// Nothing below but next_index() may be called while this is false.
    bool bound() const noexcept { return space_ != nullptr; }

    /// Begin with the available-ring entry of this index; everything before it is used.
    void start_at(uint16_t index) noexcept {
        next_ = seen_ = used_idx_ = published_ = index;
        broken_ = false;
    }
    /// Begin where the used ring ends. Right whenever no buffer is in flight, because this device
    /// returns all that it takes; needs no trust in what the frontend says.
    void start_at_used() noexcept { start_at(load16(used_.at(kIdx))); }

    /// The element before used->idx as the guest has it now: length << 32 | id. What it says is the
    /// guest's word; compared with what we wrote it tells a ring from another at the same address.
    uint64_t last_used_element() const noexcept {
        const uint32_t offset = kRing + 8 * (uint16_t(used_idx_ - 1) & (size_ - 1));
        return uint64_t{load32(used_.at(offset + 4))} << 32 | load32(used_.at(offset));
    }

    /// The next available-ring entry to be processed, as GET_VRING_BASE asks for.
    uint16_t next_index() const noexcept { return next_; }
    uint32_t size() const noexcept { return size_; }
    bool broken() const noexcept { return broken_; }

    // --- taking ----------------------------------------------------------------------------------

    /// How many chains pop() will find without looking at the ring's index again; when that is
    /// none, looks. 0 when the ring is broken.
    unsigned available() noexcept {
        if (next_ == seen_) look();
        return broken_ ? 0 : uint16_t(seen_ - next_);
    }
    /// Take the next chain. kChain fills `chain`; kMalformed and kFault set its head only.
    Pop pop(Chain& chain) noexcept;
    /// Put the last `chains` taken back, as if pop() had not been called. None has been pushed.
    void rewind(unsigned chains) noexcept { next_ = uint16_t(next_ - chains); }

    Copied gather(std::span<const Segment> from, std::span<std::byte> to) noexcept {
        return virtq::gather(*space_, from, to);
    }
    Copied scatter(std::span<const std::byte> from, std::span<const Segment> to) noexcept {
        return virtq::scatter(*space_, from, to);
    }

    // --- returning -------------------------------------------------------------------------------

    /// Return a chain, `written` bytes into its writable part. The guest sees it after flush().
    void push(uint16_t head, uint32_t written) noexcept {
        const uint32_t offset = kRing + 8 * (used_idx_ & (size_ - 1));
        store32(used_.at(offset), head);         // the two halves may lie in
        store32(used_.at(offset + 4), written);  // different pages
        ++used_idx_;
    }
    /// Let the guest see what was pushed. False when that is nothing.
    bool flush() noexcept {
        if (published_ == used_idx_) return false;
        published_ = used_idx_;
        store16<__ATOMIC_RELEASE>(used_.at(kIdx), used_idx_);  // V2: elements before index
        return true;
    }
    /// Whether the guest wants a signal for what flush() published.
    bool needs_signal() const noexcept {
        std::atomic_thread_fence(std::memory_order_seq_cst);  // V3: index stored before flags read
        return (load16(avail_.at(kFlags)) & wire::VIRTQ_AVAIL_F_NO_INTERRUPT) == 0;
    }
    /// Signal the guest. A system call: do not make it inside a reader's section. Touches no guest
    /// memory; the queue need not be bound. Errors are counted: the guest can always poll.
    void signal() noexcept;
    /// flush(), and signal() when the guest wants it.
    void complete() noexcept {
        if (flush() && needs_signal()) signal();
    }

    // --- the guest's notifications ---------------------------------------------------------------

    /// Ask the guest to kick when it makes buffers available, or not to.
    void enable_notifications(bool on) noexcept {
        store16(used_.at(kFlags), on ? 0 : wire::VIRTQ_USED_F_NO_NOTIFY);
    }
    /// enable_notifications(true) and look again. False when there is something to take already
    /// (do not sleep); a broken ring has nothing.
    bool arm() noexcept {
        enable_notifications(true);
        std::atomic_thread_fence(std::memory_order_seq_cst);  // V4: flags stored before index read
        return available() == 0;
    }
    /// Chains made available and not taken; may be old by the time it is looked at, and nonsense
    /// when the guest is up to no good. Changes nothing.
    unsigned was_available() const noexcept { return uint16_t(load16(avail_.at(kIdx)) - next_); }

    struct Stats {
        Counter broken;         ///< times that the ring made no sense
        Counter signals;        ///< signals that were wanted
        Counter signal_errors;  ///< and could not be sent
    };
    /// Threads: any.
    const Stats& stats() const noexcept { return stats_; }

  private:
    static constexpr uint32_t kFlags = 0, kIdx = 2, kRing = 4;  // of both rings

    static constexpr uint32_t kTableWindow = 4096;  // bytes of an indirect table found at a time

    struct Descriptor {
        uint64_t addr;
        uint32_t len;
        uint16_t flags;
        uint16_t next;
    };
    static_assert(sizeof(Descriptor) == sizeof(wire::virtq_desc));

    template <int kOrder = __ATOMIC_RELAXED>
    static uint16_t load16(const std::byte* p) noexcept {
        return __atomic_load_n(reinterpret_cast<const uint16_t*>(p), kOrder);
    }
    template <int kOrder = __ATOMIC_RELAXED>
    static void store16(std::byte* p, uint16_t v) noexcept {
        __atomic_store_n(reinterpret_cast<uint16_t*>(p), v, kOrder);
    }
    static uint32_t load32(const std::byte* p) noexcept {
        return __atomic_load_n(reinterpret_cast<const uint32_t*>(p), __ATOMIC_RELAXED);
    }
    static void store32(std::byte* p, uint32_t v) noexcept {
        __atomic_store_n(reinterpret_cast<uint32_t*>(p), v, __ATOMIC_RELAXED);
    }

    void look() noexcept;
    Pop fail_ring() noexcept {
        broken_ = true;
        stats_.broken.add();
        return Pop::kBroken;
    }
    uint16_t head_at(uint16_t index) const noexcept {
        return load16(avail_.at(kRing + 2 * (index & (size_ - 1))));
    }
    Descriptor descriptor(uint32_t index) const noexcept;
    Pop walk(Chain& chain) noexcept;
    Pop walk_indirect(Chain& chain, uint64_t table, uint32_t bytes, uint32_t budget) noexcept;

    Space* space_ = nullptr;
    uint32_t size_ = 0;
    uint16_t next_ = 0;       // the next entry to take
    uint16_t seen_ = 0;       // the guest's index when we last looked
    uint16_t used_idx_ = 0;   // of the next push()
    uint16_t published_ = 0;  // used->idx as the guest sees it
    bool broken_ = false;
    int call_fd_ = -1;
    RingPart<wire::desc_table_bytes(wire::kMaxQueueSize)> desc_;
    RingPart<wire::avail_ring_bytes(wire::kMaxQueueSize)> avail_;
    RingPart<wire::used_ring_bytes(wire::kMaxQueueSize)> used_;
    Stats stats_;
};

template <AddressSpace Space>
bool SplitQueue<Space>::bind(Space& space, const Vring& vring) noexcept {
    unbind();
    if (!vring.is_acceptable()) return false;
    const uint32_t n = vring.size;
    if (!desc_.resolve(space, vring.desc, wire::desc_table_bytes(n), Access::kRead) ||
        !avail_.resolve(space, vring.avail, wire::avail_ring_bytes(n), Access::kRead) ||
        !used_.resolve(space, vring.used, wire::used_ring_bytes(n), Access::kReadWrite))
        return false;
    space_ = &space;
    size_ = n;
    call_fd_ = vring.call_fd;
    return true;
}

template <AddressSpace Space>
void SplitQueue<Space>::look() noexcept {
    if (broken_) return;
    const auto idx = load16<__ATOMIC_ACQUIRE>(avail_.at(kIdx));  // V1: index before entries
    if (uint16_t(idx - next_) > size_) [[unlikely]]
        fail_ring();
    else
        seen_ = idx;
}

template <AddressSpace Space>
Pop SplitQueue<Space>::pop(Chain& chain) noexcept {
    if (available() == 0) [[unlikely]]
        return broken_ ? Pop::kBroken : Pop::kEmpty;
    const uint16_t head = head_at(next_);
    if (head >= size_) [[unlikely]]
        return fail_ring();
    ++next_;
    if (next_ != seen_)  // only a guess: the guest may change the entry until it is taken
        __builtin_prefetch(desc_.at(16 * (head_at(next_) & (size_ - 1))));
    chain.begin(head);
    return walk(chain);
}

template <AddressSpace Space>
auto SplitQueue<Space>::descriptor(uint32_t index) const noexcept -> Descriptor {
    // 16-byte aligned: two atomic loads read every field once.
    const auto* words = reinterpret_cast<const uint64_t*>(desc_.at(16 * index));
    const std::array<uint64_t, 2> copy{__atomic_load_n(words, __ATOMIC_RELAXED),
                                       __atomic_load_n(words + 1, __ATOMIC_RELAXED)};
    return std::bit_cast<Descriptor>(copy);
}

/// Spec: 2.7.5; 2.7.5.3.1 "MUST NOT create a descriptor chain longer than the Queue Size", which
/// also ends loops; 2.7.5.3.2 direct descriptors may come before an indirect one.
template <AddressSpace Space>
Pop SplitQueue<Space>::walk(Chain& chain) noexcept {
    uint32_t index = chain.head();
    // The chain may not be longer than what it can hold either, empty buffers included: that
    // bounds what a guest can make us do for one chain.
    for (uint32_t budget = std::min(size_, Chain::kMaxSegments); budget > 0; --budget) {
        const Descriptor d = descriptor(index);
        if ((d.flags & wire::VIRTQ_DESC_F_INDIRECT) != 0) {
            if ((d.flags & wire::VIRTQ_DESC_F_NEXT) != 0) return Pop::kMalformed;
            return walk_indirect(chain, d.addr, d.len, budget);
        }
        if (!chain.append(d.addr, d.len, (d.flags & wire::VIRTQ_DESC_F_WRITE) != 0))
            return Pop::kMalformed;
        if ((d.flags & wire::VIRTQ_DESC_F_NEXT) == 0) return Pop::kChain;
        index = d.next;
        if (index >= size_) return Pop::kMalformed;
    }
    return Pop::kMalformed;
}

/// `budget`: how many descriptors the chain may still have. The table lies anywhere, at any
/// alignment; a descriptor may straddle pieces of it. A table may be longer than its chain.
template <AddressSpace Space>
Pop SplitQueue<Space>::walk_indirect(Chain& chain, uint64_t table, uint32_t bytes,
                                     uint32_t budget) noexcept {
    const uint32_t entries = bytes / sizeof(Descriptor);
    if (entries == 0 || bytes % sizeof(Descriptor) != 0 || table + (bytes - 1) < table)
        return Pop::kMalformed;
    std::span<std::byte> window;  // of the table in our memory, from byte `window_at` on
    uint32_t window_at = 0;
    uint32_t index = 0;
    for (; budget > 0; --budget) {
        Descriptor d;
        const uint32_t at = index * uint32_t(sizeof d);
        for (uint32_t got = 0; got < sizeof d;) {
            const uint32_t from = at + got;
            if (from - window_at >= window.size()) {
                // Enough for what follows when it follows in order, and a bounded amount of work
                // when the guest jumps about.
                const uint32_t want = std::min(kTableWindow, bytes - from);
                window = space_->resolve(table + from, want, Access::kRead);
                if (window.empty()) return Pop::kFault;
                window_at = from;
            }
            const auto piece = window.subspan(from - window_at);
            const auto part = std::min(piece.size(), sizeof d - got);
            copy_once(reinterpret_cast<std::byte*>(&d) + got, piece.data(), part);
            got += uint32_t(part);
        }
        if ((d.flags & wire::VIRTQ_DESC_F_INDIRECT) != 0 ||
            !chain.append(d.addr, d.len, (d.flags & wire::VIRTQ_DESC_F_WRITE) != 0))
            return Pop::kMalformed;
        if ((d.flags & wire::VIRTQ_DESC_F_NEXT) == 0) return Pop::kChain;
        index = d.next;
        if (index >= entries) return Pop::kMalformed;
    }
    return Pop::kMalformed;
}

template <AddressSpace Space>
void SplitQueue<Space>::signal() noexcept {
    if (call_fd_ < 0) return;
    const uint64_t one = 1;
    stats_.signals.add();
    if (write(call_fd_, &one, sizeof one) != sizeof one) stats_.signal_errors.add();
}

}  // namespace viommu::virtq
