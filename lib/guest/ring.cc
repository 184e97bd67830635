// SPDX-License-Identifier: BSD-3-Clause
#include "ring.hh"

#include <algorithm>

namespace viommu::guest {

uint64_t total_bytes(std::span<const Segment> segments) {
    uint64_t sum = 0;
    for (const auto& s : segments) sum += s.bytes;
    return sum;
}

void Ring::remember(uint16_t id, uint16_t descriptors, uint64_t writable_bytes, uint64_t token) {
    slots_[id] = {token, writable_bytes, descriptors, 0};
    if (chains_ == 0)
        oldest_ = id;
    else
        slots_[newest_].newer = id;
    newest_ = id;
    free_ = uint16_t(free_ - descriptors);
    ++chains_;
}

bool Ring::begin_batch(uint32_t id, uint32_t bytes, uint16_t max_chains) {
    if (id >= size_ || slots_[id].descriptors == 0) {
        broken_ = fmt::format("the device returned {}, which names no chain in flight", id);
        return false;
    }
    Batch batch{1, slots_[id].descriptors, uint16_t(id), bytes};
    for (uint16_t c = oldest_; format_.in_order && c != id; c = slots_[c].newer) {
        ++batch.chains;
        batch.descriptors = uint16_t(batch.descriptors + slots_[c].descriptors);
    }
    if (batch.chains > max_chains) {
        broken_ = fmt::format("the device returned {} as the last of {} chains, but it is the {}th",
                              id, max_chains, batch.chains);
        return false;
    }
    if (bytes > slots_[id].writable_bytes) {
        broken_ = fmt::format("the device says it wrote {} bytes into chain {}, which takes {}",
                              bytes, id, slots_[id].writable_bytes);
        return false;
    }
    batch_ = batch;
    return true;
}

Completion Ring::next_of_batch() {
    const uint16_t id = format_.in_order ? oldest_ : batch_.last;
    Slot& slot = slots_[id];
    --batch_.chains;
    const auto completely = uint32_t(std::min<uint64_t>(slot.writable_bytes, UINT32_MAX));
    const Completion done{id, batch_.chains == 0 ? batch_.bytes : completely, slot.token};
    oldest_ = slot.newer;
    free_ = uint16_t(free_ + slot.descriptors);
    slot.descriptors = 0;
    --chains_;
    return done;
}

}  // namespace viommu::guest
