// SPDX-License-Identifier: BSD-3-Clause
/// The device side of one split virtqueue (virtio 1.3, 2.7). How to use it: queue.hh.
///
/// Guest:   every ring field is read once, atomically or into a copy, and checked before use.
/// Orders:  the partner of every V* below is the guest's driver; doc/ordering.md, 7.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "indirect_table.hh"
#include "plain.hh"
#include "queue_base.hh"
#include "ring_part.hh"

namespace viommu::virtq {

template <AddressSpace Space>
class SplitQueue : public QueueBase {
  public:
    using QueueBase::QueueBase;

    /// Find the ring in our memory. `vring` has addresses of `space`, which stays until unbind();
    /// `features` are what the driver accepted.
    ///
    /// What was taken so far is kept, so that a ring can be bound again where it was.
    /// Errors: false when the ring is not acceptable or cannot be resolved; then the queue is not
    ///         bound. Nothing in guest memory is touched in either case.
    bool bind(Space& space, const Vring& vring, uint64_t features = 0) noexcept;
    /// Whether the ring is still where bind() found it, by the space's present word.
    bool is_unmoved(Space& space) const noexcept {
        return desc_.is_unmoved(space) &&
               avail_.is_unmoved(space) &&
               used_.is_unmoved(space);
    }
    void unbind() noexcept { space_ = nullptr; }
    /// Nothing below but next_base(), mark() and signal() may be called while this is false.
    bool bound() const noexcept { return space_ != nullptr; }

    /// Begin with the available-ring entry of this index; everything before it is used.
    void start_at(uint32_t base) noexcept {
        next_ = seen_ = used_idx_ = published_ = uint16_t(base);
        last_ = element_at(uint16_t(used_idx_ - 1));
        unsignalled_ = 0;
        broken_ = false;
    }
    /// Begin where the used ring ends. Right whenever no buffer is in flight, because this device
    /// returns all that it takes; needs no trust in what the frontend says.
    void start_at_used() noexcept { start_at(load<uint16_t>(used_.at(kIdx))); }

    /// The next available-ring entry to be processed, as GET_VRING_BASE asks for.
    uint32_t next_base() const noexcept { return next_; }
    /// Where we are, and the element that we wrote last.
    Mark mark() const noexcept { return {next_base(), uint16_t(used_idx_ - 1), last_}; }
    /// Whether the used ring still ends as the mark says. What it says is the guest's word; it
    /// tells a ring from a new one at the same address.
    bool continues(const Mark& mark, uint32_t /*base*/) const noexcept {
        return load<uint16_t>(used_.at(kIdx)) == uint16_t(mark.at + 1) &&
               mark.base == uint16_t(mark.at + 1) && element_at(uint16_t(mark.at)) == mark.last;
    }

    // --- taking ----------------------------------------------------------------------------------

    /// How many chains, at most `most`, pop() will find. Looks at the ring's index when it is not
    /// known that there are as many. 0 when the ring is broken.
    unsigned available(unsigned most = ~0u) noexcept {
        if (uint16_t(seen_ - next_) < most) look();
        return broken_ ? 0 : std::min(most, unsigned(uint16_t(seen_ - next_)));
    }
    /// Take the next chain. kChain fills `chain`; kMalformed and kFault only say what was taken.
    Pop pop(Chain& chain) noexcept;
    /// Put the chain that was taken last back, as if pop() had not been called. Nothing that was
    /// taken after it has been pushed.
    void unpop(const Taken&) noexcept { --next_; }
    /// Take the chains that come next as long as they are plain, at most out.size(). Returns how
    /// many; what comes after them is for pop(). Each descriptor is read once.
    unsigned pop_plain(std::span<Plain> out, const PlainLimits& limits) noexcept;
    /// Put back the last `n` of what pop_plain() took.
    void unpop_plain(unsigned n) noexcept { next_ = uint16_t(next_ - n); }

    Copied gather(std::span<const Segment> from, std::span<std::byte> to) noexcept {
        return virtq::gather(*space_, from, to);
    }
    Copied scatter(std::span<const std::byte> from, std::span<const Segment> to) noexcept {
        return virtq::scatter(*space_, from, to);
    }

    // --- returning -------------------------------------------------------------------------------

    /// Return a chain, `written` bytes into its writable part. The guest sees it after flush().
    void push(const Taken& taken, uint32_t written) noexcept {
        const uint32_t offset = kRing + 8 * (used_idx_ & (size_ - 1));
        store<uint32_t>(used_.at(offset), taken.id);     // the two halves may lie in
        store<uint32_t>(used_.at(offset + 4), written);  // different pages
        last_ = uint64_t{written} << 32 | taken.id;
        ++used_idx_;
    }
    /// push() of each.
    void push_plain(std::span<const Plain> chains) noexcept {
        uint16_t used = used_idx_;
        const uint32_t mask = size_ - 1;
        for (const Plain& c : chains) {
            const uint32_t offset = kRing + 8 * (used++ & mask);
            store<uint32_t>(used_.at(offset), c.id);
            store<uint32_t>(used_.at(offset + 4), c.written);
        }
        if (!chains.empty()) last_ = uint64_t{chains.back().written} << 32 | chains.back().id;
        used_idx_ = used;
    }
    /// Let the guest see what was pushed. False when that is nothing.
    bool flush() noexcept {
        if (published_ == used_idx_) return false;
        unsignalled_ += uint16_t(used_idx_ - published_);
        published_ = used_idx_;
        // V2: elements before index
        store<uint16_t, __ATOMIC_RELEASE>(used_.at(kIdx), used_idx_);
        return true;
    }
    /// Whether the guest wants a signal for anything that flush() published since this was last
    /// asked. Ask after each flush() that was true.
    bool needs_signal() noexcept {
        std::atomic_thread_fence(std::memory_order_seq_cst);  // V3: index stored before flags read
        const uint32_t published = std::exchange(unsignalled_, 0);
        if (event_idx_) {  // 2.7.7.2: when the element `used_event` is among them
            const auto used_event = load<uint16_t>(avail_.at(wire::avail_ring_bytes(size_)));
            return uint16_t(published_ - used_event - 1) < published;
        }
        return (load<uint16_t>(avail_.at(kFlags)) & wire::VIRTQ_AVAIL_F_NO_INTERRUPT) == 0;
    }
    /// flush(), and signal() when the guest wants it.
    void complete() noexcept {
        if (flush() && needs_signal()) signal();
    }

    // --- the guest's notifications ---------------------------------------------------------------

    /// Ask the guest to kick when it makes buffers available, or not to. With EVENT_IDX it kicks
    /// once, for the next buffer: ask again, by arm(), before each sleep.
    void enable_notifications(bool on) noexcept {
        if (event_idx_) {
            set_avail_event(on ? next_ : uint16_t(next_ - 1));
            store<uint16_t>(used_.at(kFlags), 0);  // 2.7.10.2
        } else {
            store<uint16_t>(used_.at(kFlags), on ? 0 : wire::VIRTQ_USED_F_NO_NOTIFY);
        }
    }
    /// enable_notifications(true) and look again. False when there is something to take already
    /// (do not sleep); a broken ring has nothing.
    bool arm() noexcept {
        enable_notifications(true);
        // V4: flags or event stored before index read
        std::atomic_thread_fence(std::memory_order_seq_cst);
        return available(1) == 0;
    }
    /// Chains made available and not taken; may be old by the time it is looked at, and nonsense
    /// when the guest is up to no good. Changes nothing.
    unsigned was_available() const noexcept {
        return uint16_t(load<uint16_t>(avail_.at(kIdx)) - next_);
    }

  private:
    static constexpr uint32_t kFlags = 0, kIdx = 2, kRing = 4;  // of both rings

    struct Descriptor {
        uint64_t addr;
        uint32_t len;
        uint16_t flags;
        uint16_t next;
    };
    static_assert(sizeof(Descriptor) == sizeof(wire::virtq_desc));

    void look() noexcept;
    void set_avail_event(uint16_t index) noexcept {
        avail_event_ = index;
        store<uint16_t>(used_.at(wire::used_ring_bytes(size_)), index);
    }
    uint16_t head_at(uint16_t index) const noexcept {
        return load<uint16_t>(avail_.at(kRing + 2 * (index & (size_ - 1))));
    }
    uint64_t element_at(uint16_t index) const noexcept {
        const uint32_t offset = kRing + 8 * (index & (size_ - 1));
        return uint64_t{load<uint32_t>(used_.at(offset + 4))} << 32 |
               load<uint32_t>(used_.at(offset));
    }
    Descriptor descriptor(uint32_t index) const noexcept;
    Pop walk(Chain& chain) noexcept;
    Pop walk_indirect(Chain& chain, const Descriptor& table) noexcept;

    Space* space_ = nullptr;
    uint16_t next_ = 0;         // the next entry to take
    uint16_t seen_ = 0;         // the guest's index when we last looked
    uint16_t used_idx_ = 0;     // of the next push()
    uint16_t published_ = 0;    // used->idx as the guest sees it
    uint16_t avail_event_ = 0;  // with EVENT_IDX, as the guest sees it
    uint64_t last_ = 0;         // the element before used_idx_
    RingPart<wire::desc_table_bytes(wire::kMaxQueueSize)> desc_;
    RingPart<wire::avail_ring_bytes(wire::kMaxQueueSize, true)> avail_;
    RingPart<wire::used_ring_bytes(wire::kMaxQueueSize, true)> used_;
};

template <AddressSpace Space>
bool SplitQueue<Space>::bind(Space& space, const Vring& vring, uint64_t features) noexcept {
    unbind();
    if (negotiated(features, wire::VIRTIO_F_RING_PACKED) || !vring.is_acceptable(features))
        return false;
    const bool events = negotiated(features, wire::VIRTIO_F_EVENT_IDX);
    const uint32_t n = vring.size;
    if (!desc_.resolve(space, vring.desc, wire::desc_table_bytes(n), Access::kRead) ||
        !avail_.resolve(space, vring.avail, wire::avail_ring_bytes(n, events), Access::kRead) ||
        !used_.resolve(space, vring.used, wire::used_ring_bytes(n, events), Access::kReadWrite))
        return false;
    space_ = &space;
    bound_to(space, vring, features);
    return true;
}

template <AddressSpace Space>
void SplitQueue<Space>::look() noexcept {
    if (broken_) return;
    const auto idx = load<uint16_t, __ATOMIC_ACQUIRE>(avail_.at(kIdx));  // V1: index before entries
    if (uint16_t(idx - next_) > size_) [[unlikely]] {
        if (next_ == seen_) fail_ring();  // else there still is what was seen before
        return;
    }
    seen_ = idx;
    // The driver compares indices modulo 2^16, so an event far behind us becomes one that is still
    // to come. Nobody sleeps with it armed: what it was armed for has been taken.
    if (event_idx_ && uint16_t(next_ - avail_event_) >= 0x8000) [[unlikely]]
        set_avail_event(uint16_t(next_ - 1));
}

template <AddressSpace Space>
Pop SplitQueue<Space>::pop(Chain& chain) noexcept {
    if (available(1) == 0) [[unlikely]]
        return broken_ ? Pop::kBroken : Pop::kEmpty;
    const uint16_t head = head_at(next_);
    if (head >= size_) [[unlikely]]
        return fail_ring();
    ++next_;
    if (next_ != seen_)  // only a guess: the guest may change the entry until it is taken
        __builtin_prefetch(desc_.at(16 * (head_at(next_) & (size_ - 1))));
    chain.begin({.id = head});
    return walk(chain);
}

template <AddressSpace Space>
unsigned SplitQueue<Space>::pop_plain(std::span<Plain> out, const PlainLimits& limits) noexcept {
    const unsigned n = available(unsigned(out.size()));
    const uint16_t flags = limits.writable ? wire::VIRTQ_DESC_F_WRITE : 0;
    constexpr uint16_t kMatter =
        wire::VIRTQ_DESC_F_NEXT | wire::VIRTQ_DESC_F_WRITE | wire::VIRTQ_DESC_F_INDIRECT;
    // The lines of all descriptors are on their way before the first is looked at.
    for (unsigned i = 0; i < n; ++i) {
        out[i].id = head_at(uint16_t(next_ + i));
        __builtin_prefetch(desc_.at(16 * (out[i].id & (size_ - 1))));
    }
    unsigned taken = 0;
    for (; taken < n; ++taken) {
        Plain& chain = out[taken];
        if (chain.id >= size_) break;
        const Descriptor d = descriptor(chain.id);
        if ((d.flags & kMatter) != flags || !limits.hold(d.addr, d.len)) break;
        chain = {.addr = d.addr, .len = d.len, .id = chain.id, .unused = 0, .written = 0};
    }
    next_ = uint16_t(next_ + taken);
    return taken;
}

template <AddressSpace Space>
auto SplitQueue<Space>::descriptor(uint32_t index) const noexcept -> Descriptor {
    // 16-byte aligned: two atomic loads read every field once.
    const std::byte* at = desc_.at(16 * index);
    return std::bit_cast<Descriptor>(std::array{load<uint64_t>(at), load<uint64_t>(at + 8)});
}

/// Spec: 2.7.5; 2.7.5.3.1 "MUST NOT create a descriptor chain longer than the Queue Size", which
/// also ends loops; 2.7.5.3.2 direct descriptors may come before an indirect one.
template <AddressSpace Space>
Pop SplitQueue<Space>::walk(Chain& chain) noexcept {
    uint32_t index = chain.head();
    for (uint32_t left = size_; left > 0; --left) {
        const Descriptor d = descriptor(index);
        if ((d.flags & wire::VIRTQ_DESC_F_INDIRECT) != 0) {
            if ((d.flags & wire::VIRTQ_DESC_F_NEXT) != 0) return Pop::kMalformed;
            return walk_indirect(chain, d);
        }
        if (!chain.append(d.addr, d.len, (d.flags & wire::VIRTQ_DESC_F_WRITE) != 0))
            return Pop::kMalformed;
        if ((d.flags & wire::VIRTQ_DESC_F_NEXT) == 0) return Pop::kChain;
        index = d.next;
        if (index >= size_) return Pop::kMalformed;
    }
    return Pop::kMalformed;
}

/// A table may be longer than its chain. Empty buffers count: that ends loops of them.
template <AddressSpace Space>
Pop SplitQueue<Space>::walk_indirect(Chain& chain, const Descriptor& table) noexcept {
    IndirectTable<Space> entries(*space_, table.addr, table.len);
    if (!entries.is_acceptable()) return Pop::kMalformed;
    const uint32_t most = std::max(size_, Chain::kMinSegments);
    uint32_t index = 0;
    while (chain.descriptors() < most) {
        typename IndirectTable<Space>::Entry entry;
        if (!entries.read(index, entry)) return Pop::kFault;
        const auto d = std::bit_cast<Descriptor>(entry);
        if ((d.flags & wire::VIRTQ_DESC_F_INDIRECT) != 0 ||
            !chain.append(d.addr, d.len, (d.flags & wire::VIRTQ_DESC_F_WRITE) != 0))
            return Pop::kMalformed;
        if ((d.flags & wire::VIRTQ_DESC_F_NEXT) == 0) return Pop::kChain;
        index = d.next;
        if (index >= entries.entries()) return Pop::kMalformed;
    }
    return Pop::kMalformed;
}

}  // namespace viommu::virtq
