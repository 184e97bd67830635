// SPDX-License-Identifier: BSD-3-Clause
#include "split_ring.hh"

#include <atomic>
#include <cassert>

namespace viommu::guest {

using namespace wire;

SplitRing::SplitRing(DmaBlock ring, uint16_t size, RingFormat format, uint32_t align)
    : Ring(std::move(ring), size, format),
      next_(size),
      avail_(desc_table_bytes(size)),
      used_(used_offset(size, align)) {
    assert(size != 0 && (size & (size - 1)) == 0 && size <= kMaxQueueSize);
    assert(ring_.bytes >= bytes(size, align));
    for (uint32_t i = 0; i < size; ++i) next_[i] = uint16_t((i + 1) % size);
}

/// Into the first free descriptor.
void SplitRing::put(const Segment& segment, uint16_t flags) {
    const uint16_t next = next_[first_free_];
    shared<virtq_desc>(uint64_t{first_free_} * sizeof(virtq_desc)) = {segment.at.value,
                                                                      segment.bytes, flags, next};
    first_free_ = next;
}

void SplitRing::offer(uint16_t head, uint16_t descriptors, uint64_t writable_bytes,
                      uint64_t token) {
    remember(head, descriptors, writable_bytes, token);
    shared<le16>(avail_ + 4 + 2 * uint64_t(next_avail_ & (size_ - 1))) = head;
    ++next_avail_;
    ++unsignalled_;
}

void SplitRing::add(std::span<const Segment> readable, std::span<const Segment> writable,
                    uint64_t token) {
    const size_t total = readable.size() + writable.size();
    const uint16_t head = first_free_;
    size_t i = 0;
    for (const auto& s : readable) put(s, chain_flags(false, ++i == total));
    for (const auto& s : writable) put(s, chain_flags(true, ++i == total));
    offer(head, uint16_t(total), total_bytes(writable), token);
}

void SplitRing::add_table(const Segment& table, uint64_t writable_bytes, uint64_t token) {
    const uint16_t head = first_free_;
    put(table, VIRTQ_DESC_F_INDIRECT);
    offer(head, 1, writable_bytes, token);
}

virtq_desc SplitRing::table_entry(const Segment& segment, bool write, uint16_t index,
                                  bool last) const {
    return {segment.at.value, segment.bytes, chain_flags(write, last), uint16_t(index + 1)};
}

void SplitRing::publish() {
    std::atomic_ref(shared<uint16_t>(avail_ + 2)).store(next_avail_, std::memory_order_release);
}

bool SplitRing::device_wants_signal() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const uint32_t added = std::exchange(unsignalled_, 0);
    if (!format_.event_idx) {
        const uint16_t flags =
            std::atomic_ref(shared<uint16_t>(used_)).load(std::memory_order_relaxed);
        return (flags & VIRTQ_USED_F_NO_NOTIFY) == 0;
    }
    const uint16_t event =
        std::atomic_ref(shared<uint16_t>(avail_event())).load(std::memory_order_relaxed);
    return added > UINT16_MAX || passed_event(event, next_avail_, uint16_t(next_avail_ - added));
}

std::optional<Completion> SplitRing::pop() {
    if (!broken_.empty()) return std::nullopt;
    if (batch_.chains == 0) {
        const uint16_t index =
            std::atomic_ref(shared<uint16_t>(used_ + 2)).load(std::memory_order_acquire);
        if (index == next_used_) return std::nullopt;
        const auto returned = uint16_t(index - next_used_);
        if (returned > chains_) {
            broken_ = fmt::format("used.idx went from {} to {} with {} chains in flight",
                                  next_used_, index, chains_);
            return std::nullopt;
        }
        // An element may lie in two pages, a field cannot.
        const uint64_t element = used_ + 4 + 8 * uint64_t(next_used_ & (size_ - 1));
        if (!begin_batch(shared<le32>(element), shared<le32>(element + 4), returned))
            return std::nullopt;
        next_used_ = uint16_t(next_used_ + batch_.chains);
    }
    const uint16_t descriptors =
        slots_[format_.in_order ? oldest_ : batch_.last].descriptors;
    const Completion done = next_of_batch();
    if (format_.in_order) return done;
    uint16_t last = done.id;
    for (uint16_t i = 1; i < descriptors; ++i) last = next_[last];
    // With all descriptors in use, what first_free_ says means nothing; no harm comes of it.
    next_[last] = first_free_;
    first_free_ = done.id;
    return done;
}

/// The pair of the device's fence between its store of used.idx and its load of flags or used_event
/// is the fence here, between our store of these and our load of used.idx.
bool SplitRing::want_interrupts(bool wanted, uint16_t after) {
    if (format_.event_idx) {
        // Not wanted: an index that the device has just passed is the last that it comes to again.
        const auto event = uint16_t(wanted ? next_used_ + after : next_used_ - 1);
        std::atomic_ref(shared<uint16_t>(used_event())).store(event, std::memory_order_relaxed);
    } else {
        std::atomic_ref(shared<uint16_t>(avail_))
            .store(wanted ? 0 : VIRTQ_AVAIL_F_NO_INTERRUPT, std::memory_order_relaxed);
    }
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const uint16_t index =
        std::atomic_ref(shared<uint16_t>(used_ + 2)).load(std::memory_order_relaxed);
    return batch_.chains != 0 || uint16_t(index - next_used_) > after;
}

}  // namespace viommu::guest
