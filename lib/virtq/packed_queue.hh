// SPDX-License-Identifier: BSD-3-Clause
/// The device side of one packed virtqueue (virtio 1.3, 2.8). How to use it: queue.hh.
///
/// Guest:   a descriptor is read by two atomic loads, once, before anything of it is used. Buffer
///          ids are given back and nothing else. How far a chain reaches is bounded by what the
///          ring can hold besides the chains that are taken and not returned.
/// Orders:  the partner of every P* below is the guest's driver; doc/ordering.md, 7.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "indirect_table.hh"
#include "packed_line.hh"
#include "plain.hh"
#include "queue_base.hh"
#include "ring_part.hh"

namespace viommu::virtq {

/// Its members do what SplitQueue's of the same name do.
template <AddressSpace Space>
class PackedQueue : public QueueBase {
  public:
    using QueueBase::QueueBase;

    /// What a fresh ring's base is: both at descriptor 0, wrap counters 1.
    static constexpr uint32_t kFreshBase = 0x80008000;

    bool bind(Space& space, const Vring& vring,
              uint64_t features = uint64_t{1} << wire::VIRTIO_F_RING_PACKED) noexcept;
    bool is_unmoved(Space& space) const noexcept {
        return ring_.is_unmoved(space) &&
               driver_area_.is_unmoved(space) &&
               device_area_.is_unmoved(space);
    }
    void unbind() noexcept { space_ = nullptr; }
    bool bound() const noexcept { return space_ != nullptr; }

    /// Begin with the descriptor that the lower half of `base` says. The upper half, where used
    /// descriptors go, is the same, because everything taken is returned before a queue stops; some
    /// frontends (DPDK's virtio-user) do not send it. A place that the ring does not have: broken.
    void start_at(uint32_t base) noexcept;

    uint32_t next_base() const noexcept { return next_.half() | used_.half() << 16; }
    Mark mark() const noexcept { return {next_base(), last_at_, last_}; }
    /// Whether the frontend goes on at the mark, and the last used descriptor is still there or has
    /// been made available again by the next lap.
    bool continues(const Mark& mark, uint32_t base) const noexcept;

    // --- taking ----------------------------------------------------------------------------------

    /// How many chains, at most `most`, seem to begin at the next place, found by looking at the
    /// flags of the descriptors there. 0 is certain; more is what the guest says now.
    unsigned available(unsigned most = ~0u) noexcept;
    /// A chain that does not end, and one that reaches into chains that are not returned yet, break
    /// the ring: there is no telling what was taken.
    Pop pop(Chain& chain) noexcept;
    void unpop(const Taken& taken) noexcept {
        next_.retreat(taken.slots, size_);
        out_ -= taken.slots;
    }
    unsigned pop_plain(std::span<Plain> out, const PlainLimits& limits) noexcept;
    void unpop_plain(unsigned n) noexcept {
        next_.retreat(n, size_);
        out_ -= n;
    }

    Copied gather(std::span<const Segment> from, std::span<std::byte> to) noexcept {
        return virtq::gather(*space_, from, to);
    }
    Copied scatter(std::span<const std::byte> from, std::span<const Segment> to) noexcept {
        return virtq::scatter(*space_, from, to);
    }

    // --- returning -------------------------------------------------------------------------------

    /// Chains may be returned in any order. The driver looks at the first of a batch only, so that
    /// is written by flush().
    void push(const Taken& taken, uint32_t written) noexcept;
    void push_plain(std::span<const Plain> chains) noexcept;
    bool flush() noexcept {
        if (pushed_ == 0) return false;
        unsignalled_ += std::exchange(pushed_, 0);
        // P2: what we wrote into buffers, and the rest of the batch, before its first descriptor
        store<uint64_t, __ATOMIC_RELEASE>(word_at(first_at_), first_);
        return true;
    }
    bool needs_signal() noexcept;
    void complete() noexcept {
        if (flush() && needs_signal()) signal();
    }

    // --- the guest's notifications ---------------------------------------------------------------

    void enable_notifications(bool on) noexcept {
        const uint32_t flags = !on          ? wire::RING_EVENT_FLAGS_DISABLE
                               : event_idx_ ? wire::RING_EVENT_FLAGS_DESC
                                            : wire::RING_EVENT_FLAGS_ENABLE;
        const uint32_t place = on && event_idx_ ? next_.half() : 0;
        store<uint32_t>(device_area_.at(0), place | flags << 16);
    }
    bool arm() noexcept {
        enable_notifications(true);
        // P4: event suppression stored before flags read
        std::atomic_thread_fence(std::memory_order_seq_cst);
        return available(1) == 0;
    }
    unsigned was_available() noexcept { return available(); }

  private:
    static constexpr uint16_t kAvail = wire::VIRTQ_DESC_F_AVAIL;
    static constexpr uint16_t kUsed = wire::VIRTQ_DESC_F_USED;

    /// A place in the ring, and the wrap counter of whoever is there.
    struct Place {
        uint16_t slot = 0;
        bool wrap = true;

        friend bool operator==(const Place&, const Place&) = default;
        uint32_t half() const noexcept { return uint32_t{slot} | uint32_t{wrap} << 15; }
        void advance(uint32_t n, uint32_t size) noexcept {  // n <= size
            const uint32_t to = slot + n;
            wrap ^= to >= size;
            slot = uint16_t(to >= size ? to - size : to);
        }
        void retreat(uint32_t n, uint32_t size) noexcept {
            wrap ^= n > slot;
            slot = uint16_t(n > slot ? slot + size - n : slot - n);
        }
        /// Of a descriptor here: made available by the driver, not used yet.
        bool has(uint16_t flags) const noexcept {
            return (flags & (kAvail | kUsed)) == (wrap ? kAvail : kUsed);
        }
    };

    /// The second half of a descriptor, as one word.
    struct Tail {
        uint32_t len;
        uint16_t id;
        uint16_t flags;

        explicit Tail(uint64_t word) noexcept
            : len(uint32_t(word)), id(uint16_t(word >> 32)), flags(uint16_t(word >> 48)) {}
    };

    std::byte* word_at(uint32_t slot) const noexcept { return ring_.at(16 * slot + 8); }
    /// P1: flags before the rest of this descriptor, and before the chain's others.
    Tail look(uint32_t slot) const noexcept {
        return Tail(load<uint64_t, __ATOMIC_ACQUIRE>(word_at(slot)));
    }
    /// Descriptors that the guest can have made available: those that it has not seen returned are
    /// not its own.
    uint32_t room() const noexcept { return size_ - out_ - pushed_; }

    /// The flags, in their place in a tail, of a plain chain at `at`; and of one that is returned.
    static uint64_t plain_flags(const Place& at, const PlainLimits& limits) noexcept {
        return uint64_t(at.wrap ? kAvail : kUsed) << 48 |
               uint64_t(limits.writable ? wire::VIRTQ_DESC_F_WRITE : 0) << 48;
    }
    static uint64_t used_flags(const Place& at) noexcept {
        return uint64_t(at.wrap ? kAvail | kUsed : 0) << 48;
    }
    static uint64_t used_word(const Place& at, const Plain& chain) noexcept {
        return PackedLine::used(used_flags(at), chain);
    }
    /// The line that begins at `slot`, when one does, it has no more than `most` entries, and is in
    /// one piece. None of `most` descriptors is beyond the ring's end.
    std::byte* line_at(uint32_t slot, uint32_t most) const noexcept {
        return slot % PackedLine::kEntries == 0 && most >= PackedLine::kEntries
                   ? ring_.at_whole(16 * slot, PackedLine::kBytes)
                   : nullptr;
    }
    uint32_t pop_run(const Place& at, uint32_t most, Plain* out,
                     const PlainLimits& limits) const noexcept;
    void push_run(const Place& at, uint32_t n, const Plain* from) const noexcept;
    Pop walk(Chain& chain, Tail tail) noexcept;
    Pop walk_indirect(Chain& chain, uint64_t table, uint32_t bytes) noexcept;

    Space* space_ = nullptr;
    Place next_;             // the next descriptor to take
    Place used_;             // where the next push() goes
    uint32_t out_ = 0;       // descriptors taken and not returned
    uint32_t pushed_ = 0;    // descriptors returned since flush()
    uint32_t first_at_ = 0;  // of these, the one that flush() writes,
    uint64_t first_ = 0;     // and what
    uint32_t last_at_ = 0;   // the used descriptor that was written last,
    uint64_t last_ = 0;      // and what
    RingPart<wire::desc_table_bytes(wire::kMaxQueueSize)> ring_;
    RingPart<sizeof(wire::pvirtq_event_suppress)> driver_area_;
    RingPart<sizeof(wire::pvirtq_event_suppress)> device_area_;
};

template <AddressSpace Space>
bool PackedQueue<Space>::bind(Space& space, const Vring& vring, uint64_t features) noexcept {
    unbind();
    if (!negotiated(features, wire::VIRTIO_F_RING_PACKED) || !vring.is_acceptable(features))
        return false;
    constexpr uint32_t kArea = sizeof(wire::pvirtq_event_suppress);
    if (!ring_.resolve(space, vring.desc, wire::desc_table_bytes(vring.size),
                       Access::kReadWrite) ||
        !driver_area_.resolve(space, vring.avail, kArea, Access::kRead) ||
        !device_area_.resolve(space, vring.used, kArea, Access::kWrite))
        return false;
    space_ = &space;
    bound_to(space, vring, features);
    return true;
}

template <AddressSpace Space>
void PackedQueue<Space>::start_at(uint32_t base) noexcept {
    next_ = used_ = {uint16_t(base & 0x7fff), (base & 0x8000) != 0};
    out_ = pushed_ = unsignalled_ = 0;
    last_at_ = 0;
    last_ = 0;
    broken_ = false;
    if (next_.slot >= size_) {
        next_ = used_ = {};
        fail_ring();
        return;
    }
    Place last = next_;
    last.retreat(1, size_);
    last_at_ = last.slot;
    last_ = load<uint64_t>(word_at(last_at_));
}

template <AddressSpace Space>
bool PackedQueue<Space>::continues(const Mark& mark, uint32_t base) const noexcept {
    if (uint16_t(base) != uint16_t(mark.base) || mark.at >= size_) return false;
    const uint64_t now = load<uint64_t>(word_at(mark.at));
    // The wrap counter of the lap in which the place is made available after the mark.
    const bool next_lap = ((mark.base & 0x8000) != 0) ^ (mark.at < (mark.base & 0x7fff));
    return now == mark.last || Place{uint16_t(mark.at), next_lap}.has(Tail(now).flags);
}

template <AddressSpace Space>
unsigned PackedQueue<Space>::available(unsigned most) noexcept {
    if (broken_) return 0;
    unsigned chains = 0;
    Place at = next_;
    for (uint32_t left = room(); left > 0 && chains < most; --left) {
        const uint16_t flags = look(at.slot).flags;
        if (!at.has(flags)) break;
        chains += (flags & wire::VIRTQ_DESC_F_NEXT) == 0;
        at.advance(1, size_);
    }
    // A chain that does not end is for pop() to find.
    return chains == 0 && at != next_ ? 1 : chains;
}

template <AddressSpace Space>
Pop PackedQueue<Space>::pop(Chain& chain) noexcept {
    if (broken_) [[unlikely]]
        return Pop::kBroken;
    const Tail tail = look(next_.slot);
    if (!next_.has(tail.flags)) return Pop::kEmpty;
    if (room() == 0) [[unlikely]]
        return fail_ring();
    chain.begin({});
    return walk(chain, tail);
}

template <AddressSpace Space>
unsigned PackedQueue<Space>::pop_plain(std::span<Plain> out, const PlainLimits& limits) noexcept {
    if (broken_) [[unlikely]]
        return 0;
    const auto most = uint32_t(std::min<size_t>(out.size(), room()));
    uint32_t taken = 0, asked = 0;
    while (taken == asked && taken < most) {  // again where the ring ends
        const uint32_t run = std::min(most - taken, size_ - next_.slot);
        const uint32_t got = pop_run(next_, run, out.data() + taken, limits);
        next_.advance(got, size_);
        taken += got;
        asked += run;
    }
    out_ += taken;
    return taken;
}

/// Of at most `most` descriptors, none beyond the ring's end, take the plain ones.
template <AddressSpace Space>
[[gnu::always_inline]] inline uint32_t PackedQueue<Space>::pop_run(
    const Place& at, uint32_t most, Plain* out, const PlainLimits& limits) const noexcept {
    const uint64_t wanted = plain_flags(at, limits);
    const PlainLimits within = limits;
    uint32_t taken = 0;
    while (taken < most) {
        const uint32_t slot = at.slot + taken;
        if (const std::byte* line = line_at(slot, most - taken))
            if (PackedLine::pop(line, wanted, within, out + taken)) [[likely]] {
                taken += PackedLine::kEntries;
                continue;
            }
        // P1: as look()
        const auto tail = load<uint64_t, __ATOMIC_ACQUIRE>(word_at(slot));
        if (((tail ^ wanted) & PackedLine::kPlainMask) != 0) break;
        Plain& chain = out[taken];
        PackedLine::set(chain, load<uint64_t>(ring_.at(16 * slot)), tail);
        if (!within.hold(chain.addr, chain.len)) break;
        ++taken;
    }
    return taken;
}

/// Spec: 2.8.6, 2.8.17 "MUST NOT create a descriptor list longer than the Queue Size"; 2.8.5
/// a list is direct, or one descriptor that refers to a table. A malformed chain is followed to its
/// end all the same: there stands its id.
template <AddressSpace Space>
Pop PackedQueue<Space>::walk(Chain& chain, Tail tail) noexcept {
    Pop pop = Pop::kChain;
    uint32_t slots = 0;
    for (Place at = next_;;) {
        const uint64_t addr = load<uint64_t>(ring_.at(16 * at.slot));
        const bool last = (tail.flags & wire::VIRTQ_DESC_F_NEXT) == 0;
        ++slots;
        if (pop != Pop::kChain) {
            chain.pass_over();
        } else if ((tail.flags & wire::VIRTQ_DESC_F_INDIRECT) != 0) {
            pop = slots == 1 && last ? walk_indirect(chain, addr, tail.len) : Pop::kMalformed;
        } else if (!chain.append(addr, tail.len, (tail.flags & wire::VIRTQ_DESC_F_WRITE) != 0)) {
            pop = Pop::kMalformed;
        }
        at.advance(1, size_);
        if (last) {
            next_ = at;
            out_ += slots;
            chain.retake({.id = tail.id, .slots = uint16_t(slots)});
            return pop;
        }
        if (slots == room()) [[unlikely]]
            return fail_ring();
        tail = Tail(load<uint64_t>(word_at(at.slot)));
    }
}

/// Spec: 2.8.7 the table is the chain, from its first descriptor to its last; of their flags only
/// WRITE means anything.
template <AddressSpace Space>
Pop PackedQueue<Space>::walk_indirect(Chain& chain, uint64_t table, uint32_t bytes) noexcept {
    IndirectTable<Space> entries(*space_, table, bytes);
    if (!entries.is_acceptable() || entries.entries() > std::max(size_, Chain::kMinSegments))
        return Pop::kMalformed;
    for (uint32_t i = 0; i < entries.entries(); ++i) {
        typename IndirectTable<Space>::Entry entry;
        if (!entries.read(i, entry)) return Pop::kFault;
        const Tail tail(entry[1]);
        if (!chain.append(entry[0], tail.len, (tail.flags & wire::VIRTQ_DESC_F_WRITE) != 0))
            return Pop::kMalformed;
    }
    return Pop::kChain;
}

template <AddressSpace Space>
void PackedQueue<Space>::push(const Taken& taken, uint32_t written) noexcept {
    uint16_t flags = used_.wrap ? kAvail | kUsed : 0;
    if (written != 0) flags |= wire::VIRTQ_DESC_F_WRITE;  // 2.8.3: whether anything was written
    last_at_ = used_.slot;
    last_ = uint64_t{written} | uint64_t{taken.id} << 32 | uint64_t{flags} << 48;
    if (pushed_ == 0) {
        first_at_ = last_at_;
        first_ = last_;
    } else {
        store<uint64_t>(word_at(last_at_), last_);
    }
    pushed_ += taken.slots;
    out_ -= taken.slots;
    used_.advance(taken.slots, size_);
}

template <AddressSpace Space>
void PackedQueue<Space>::push_plain(std::span<const Plain> chains) noexcept {
    if (chains.empty()) return;
    const auto n = uint32_t(chains.size());
    Place at = used_;
    uint32_t done = 0;
    if (pushed_ == 0) {  // P2: that one is for flush()
        first_at_ = at.slot;
        first_ = used_word(at, chains[0]);
        at.advance(done = 1, size_);
    }
    while (done < n) {  // again where the ring ends
        const uint32_t run = std::min(n - done, size_ - at.slot);
        push_run(at, run, chains.data() + done);
        at.advance(run, size_);
        done += run;
    }
    used_.advance(n - 1, size_);
    last_at_ = used_.slot;
    last_ = used_word(used_, chains.back());
    used_ = at;
    pushed_ += n;
    out_ -= n;
}

template <AddressSpace Space>
[[gnu::always_inline]] inline void PackedQueue<Space>::push_run(const Place& at, uint32_t n,
                                                                const Plain* from) const noexcept {
    const uint64_t flags = used_flags(at);
    for (uint32_t i = 0; i < n;) {
        const uint32_t slot = at.slot + i;
        if (std::byte* line = line_at(slot, n - i)) {
            PackedLine::push(line, flags, from + i);
            wrote(line, PackedLine::kBytes);
            i += PackedLine::kEntries;
        } else {
            store<uint64_t>(word_at(slot), PackedLine::used(flags, from[i++]));
        }
    }
}

template <AddressSpace Space>
bool PackedQueue<Space>::needs_signal() noexcept {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // P3: used stored before suppression read
    const uint32_t published = std::exchange(unsignalled_, 0);
    const auto wish = load<uint32_t>(driver_area_.at(0));  // both halves at once
    const uint32_t flags = wish >> 16 & 3;
    if (flags == wire::RING_EVENT_FLAGS_DISABLE) return false;
    if (flags != wire::RING_EVENT_FLAGS_DESC || !event_idx_) return true;
    // 2.8.10: when the descriptor `wish` is among those published. Places are counted over two
    // laps, after which a wrap counter is the same again.
    const uint32_t slot = wish & 0x7fff;
    const bool wrap = (wish & 0x8000) != 0;
    if (slot >= size_) return true;  // nonsense: be on the safe side
    const uint32_t laps = 2 * size_;
    const uint32_t here = used_.slot + (used_.wrap ? 0 : size_) + laps - pushed_;  // as published
    const uint32_t there = slot + (wrap ? 0 : size_);
    const uint32_t past = (here + laps - there) % laps;
    return published >= laps || (past != 0 && past <= published);
}

}  // namespace viommu::virtq
