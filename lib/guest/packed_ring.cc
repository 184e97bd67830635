// SPDX-License-Identifier: BSD-3-Clause
#include "packed_ring.hh"

#include <atomic>
#include <cassert>

namespace viommu::guest {

using namespace wire;

namespace {

constexpr uint16_t kAvail = VIRTQ_DESC_F_AVAIL, kUsed = VIRTQ_DESC_F_USED;
constexpr uint16_t kNoId = UINT16_MAX;

}  // namespace

PackedRing::PackedRing(DmaBlock ring, uint16_t size, RingFormat format)
    : Ring(std::move(ring), size, format),
      next_id_(size),
      driver_(driver_offset(size)),
      device_(device_offset(size)) {
    assert(size != 0 && size <= kMaxQueueSize && ring_.bytes >= bytes(size));
    for (uint32_t i = 0; i < size; ++i) next_id_[i] = uint16_t((i + 1) % size);
}

void PackedRing::put(const Segment& segment, uint16_t id, uint16_t flags) {
    const uint16_t index = next_avail_.index;
    auto& descriptor = shared<pvirtq_desc>(uint64_t{index} * sizeof(pvirtq_desc));
    descriptor.addr = segment.at.value;
    descriptor.len = segment.bytes;
    descriptor.id = id;
    flags = uint16_t(flags | (next_avail_.wrap ? kAvail : kUsed));
    if (held_)
        std::atomic_ref(shared<uint16_t>(flags_offset(index)))
            .store(flags, std::memory_order_relaxed);
    else
        held_ = Held{index, flags};
    next_avail_.advance(1, size_);
    ++unsignalled_;
}

uint16_t PackedRing::take_id(uint16_t descriptors, uint64_t writable_bytes, uint64_t token) {
    const uint16_t id = first_free_id_;
    first_free_id_ = next_id_[id];
    remember(id, descriptors, writable_bytes, token);
    return id;
}

void PackedRing::add(std::span<const Segment> readable, std::span<const Segment> writable,
                     uint64_t token) {
    const size_t total = readable.size() + writable.size();
    const uint16_t id = take_id(uint16_t(total), total_bytes(writable), token);
    size_t i = 0;
    const auto put_one = [&](const Segment& segment, bool write) {
        const bool last = ++i == total;
        put(segment, last ? id : kNoId, chain_flags(write, last));
    };
    for (const auto& s : readable) put_one(s, false);
    for (const auto& s : writable) put_one(s, true);
}

void PackedRing::add_table(const Segment& table, uint64_t writable_bytes, uint64_t token) {
    put(table, take_id(1, writable_bytes, token), VIRTQ_DESC_F_INDIRECT);
}

virtq_desc PackedRing::table_entry(const Segment& segment, bool write, uint16_t, bool) const {
    // A pvirtq_desc without ID, whose flags stand where a split descriptor has `next`.
    return {segment.at.value, segment.bytes, 0u, write ? VIRTQ_DESC_F_WRITE : uint16_t{0}};
}

void PackedRing::publish() {
    if (!held_) return;
    std::atomic_ref(shared<uint16_t>(flags_offset(held_->index)))
        .store(held_->flags, std::memory_order_release);
    held_.reset();
}

bool PackedRing::device_wants_signal() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const uint32_t added = std::exchange(unsignalled_, 0);
    const uint32_t suppress =
        std::atomic_ref(shared<uint32_t>(device_)).load(std::memory_order_relaxed);
    const auto position = uint16_t(suppress), flags = uint16_t((suppress >> 16) & 3);
    if (flags == RING_EVENT_FLAGS_DISABLE) return false;
    if (flags == RING_EVENT_FLAGS_ENABLE) return true;
    auto event = uint16_t(position & 0x7fff);
    if (flags != RING_EVENT_FLAGS_DESC || !format_.event_idx || event >= size_) {
        broken_ = fmt::format("the device's event suppression is flags {}, position {:#x}", flags,
                              position);
        return true;
    }
    if (added > size_) return true;
    // Positions of the other lap stand before those of this one.
    const bool other_lap = (position >> 15 != 0) != next_avail_.wrap;
    if (other_lap) event = uint16_t(event - size_);
    return passed_event(event, next_avail_.index, uint16_t(next_avail_.index - added));
}

bool PackedRing::is_used(Position at) const {
    const uint16_t flags = std::atomic_ref(shared<uint16_t>(flags_offset(at.index)))
                               .load(std::memory_order_acquire);
    return (flags & (kAvail | kUsed)) == (at.wrap ? kAvail | kUsed : 0);
}

std::optional<Completion> PackedRing::pop() {
    if (!broken_.empty()) return std::nullopt;
    if (batch_.chains == 0) {
        if (!is_used(next_used_)) return std::nullopt;
        const auto& used = shared<pvirtq_desc>(uint64_t{next_used_.index} * sizeof(pvirtq_desc));
        // `len` means something only where the device says that it has written (2.8.5).
        const bool wrote = (used.flags & VIRTQ_DESC_F_WRITE) != 0;
        if (!begin_batch(used.id, wrote ? uint32_t(used.len) : 0, chains_)) return std::nullopt;
        next_used_.advance(batch_.descriptors, size_);
    }
    const Completion done = next_of_batch();
    if (!format_.in_order) {
        next_id_[done.id] = first_free_id_;
        first_free_id_ = done.id;
    }
    return done;
}

/// The pair of the device's fence between its used flags and its load of our event suppression is
/// the fence here, between our store of it and our load of used flags.
bool PackedRing::want_interrupts(bool wanted, uint16_t after) {
    assert(after < size_);
    Position at = next_used_;
    at.advance(after, size_);
    const uint32_t flags = !wanted               ? RING_EVENT_FLAGS_DISABLE
                           : format_.event_idx   ? RING_EVENT_FLAGS_DESC
                                                 : RING_EVENT_FLAGS_ENABLE;
    std::atomic_ref(shared<uint32_t>(driver_))
        .store(at.value() | flags << 16, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return batch_.chains != 0 || is_used(at);
}

}  // namespace viommu::guest
