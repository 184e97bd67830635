// SPDX-License-Identifier: BSD-3-Clause
#include "driver_queue.hh"

#include <atomic>
#include <cassert>

namespace viommu::guest {

using namespace wire;

namespace {

uint16_t chain_flags(bool writable, bool last) {
    return uint16_t((writable ? VIRTQ_DESC_F_WRITE : 0) | (last ? 0 : VIRTQ_DESC_F_NEXT));
}

}  // namespace

DriverQueue::DriverQueue(DmaBlock ring, uint16_t size, int kick_fd, uint32_t align)
    : ring_(std::move(ring)),
      slots_(size),
      avail_(desc_table_bytes(size)),
      used_(used_offset(size, align)),
      size_(size),
      free_(size),
      kick_fd_(kick_fd) {
    assert(size != 0 && (size & (size - 1)) == 0 && size <= kMaxQueueSize);
    assert(ring_.bytes >= ring_bytes(size, align));
    for (uint16_t i = 0; i < size; ++i) slots_[i] = {uint16_t(i + 1), 0, 0};
}

void DriverQueue::write_descriptor(uint16_t index, const Segment& segment, uint16_t flags,
                                   uint16_t next) {
    shared<virtq_desc>(uint64_t{index} * sizeof(virtq_desc)) = {segment.at.value, segment.bytes,
                                                                flags, next};
}

/// Take `descriptors` from the head of the free list, as one chain, and put it in the next entry.
void DriverQueue::offer(uint16_t head, uint16_t descriptors, uint64_t token) {
    slots_[head].descriptors = descriptors;
    slots_[head].token = token;
    free_ = uint16_t(free_ - descriptors);
    ++chains_;
    shared<le16>(avail_ + 4 + 2 * uint64_t(next_avail_ & (size_ - 1))) = head;
    ++next_avail_;
}

bool DriverQueue::add(std::span<const Segment> readable, std::span<const Segment> writable,
                      uint64_t token) {
    const size_t total = readable.size() + writable.size();
    if (total == 0 || total > free_) return false;
    const uint16_t head = first_free_;
    for (size_t i = 0; i < total; ++i) {
        const bool write = i >= readable.size();
        const uint16_t next = slots_[first_free_].next;
        write_descriptor(first_free_, write ? writable[i - readable.size()] : readable[i],
                         chain_flags(write, i + 1 == total), next);
        first_free_ = next;
    }
    offer(head, uint16_t(total), token);
    return true;
}

void DriverQueue::use_indirect(DmaBlock tables, uint32_t max_segments) {
    assert(tables.bytes >= indirect_bytes(size_, max_segments));
    tables_ = std::move(tables);
    max_indirect_ = max_segments;
}

bool DriverQueue::add_indirect(std::span<const Segment> readable, std::span<const Segment> writable,
                               uint64_t token) {
    const size_t total = readable.size() + writable.size();
    if (total == 0 || total > max_indirect_ || free_ == 0) return false;
    const uint16_t head = first_free_;
    const uint64_t table = indirect_bytes(head, max_indirect_);
    for (size_t i = 0; i < total; ++i) {
        const bool write = i >= readable.size();
        const Segment& segment = write ? writable[i - readable.size()] : readable[i];
        // A descriptor does not cross a page: tables start on multiples of its size.
        *reinterpret_cast<virtq_desc*>(tables_.at(table + i * sizeof(virtq_desc))) = {
            segment.at.value, segment.bytes, chain_flags(write, i + 1 == total), uint16_t(i + 1)};
    }
    first_free_ = slots_[head].next;
    write_descriptor(head, {tables_.bus + table, uint32_t(total * sizeof(virtq_desc))},
                     VIRTQ_DESC_F_INDIRECT, 0);
    offer(head, 1, token);
    return true;
}

void DriverQueue::publish() {
    std::atomic_ref(shared<uint16_t>(avail_ + 2)).store(next_avail_, std::memory_order_release);
}

bool DriverQueue::kick() {
    publish();
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const uint16_t flags = std::atomic_ref(shared<uint16_t>(used_)).load(std::memory_order_relaxed);
    if ((flags & VIRTQ_USED_F_NO_NOTIFY) != 0 || kick_fd_ < 0) return false;
    signal_eventfd(kick_fd_);
    return true;
}

std::optional<Completion> DriverQueue::pop() {
    const uint16_t index =
        std::atomic_ref(shared<uint16_t>(used_ + 2)).load(std::memory_order_acquire);
    if (index == next_used_ || !broken_.empty()) return std::nullopt;
    if (uint16_t(index - next_used_) > chains_) {
        broken_ = fmt::format("used.idx went from {} to {} with {} chains in flight", next_used_,
                              index, chains_);
        return std::nullopt;
    }
    // An element may lie in two pages, a field cannot.
    const uint64_t element = used_ + 4 + 8 * uint64_t(next_used_ & (size_ - 1));
    const uint32_t id = shared<le32>(element);
    const uint32_t bytes = shared<le32>(element + 4);
    if (id >= size_ || slots_[id].descriptors == 0) {
        broken_ =
            fmt::format("used element {} returns descriptor {}, which begins no chain in flight",
                        next_used_, id);
        return std::nullopt;
    }
    ++next_used_;
    --chains_;
    Slot& head = slots_[id];
    uint16_t last = uint16_t(id);
    for (uint16_t i = 1; i < head.descriptors; ++i) last = slots_[last].next;
    slots_[last].next = first_free_;
    first_free_ = uint16_t(id);
    free_ = uint16_t(free_ + head.descriptors);
    head.descriptors = 0;
    return Completion{uint16_t(id), bytes, head.token};
}

void DriverQueue::want_interrupts(bool wanted) {
    std::atomic_ref(shared<uint16_t>(avail_))
        .store(wanted ? 0 : VIRTQ_AVAIL_F_NO_INTERRUPT, std::memory_order_relaxed);
}

}  // namespace viommu::guest
