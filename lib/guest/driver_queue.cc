// SPDX-License-Identifier: BSD-3-Clause
#include "driver_queue.hh"

#include <cassert>

#include "eventfd.hh"

namespace viommu::guest {

using namespace wire;

namespace {

std::unique_ptr<Ring> make_ring(DmaBlock ring, uint16_t size, RingFormat format, uint32_t align) {
    if (format.packed) return std::make_unique<PackedRing>(std::move(ring), size, format);
    return std::make_unique<SplitRing>(std::move(ring), size, format, align);
}

}  // namespace

DriverQueue::DriverQueue(DmaBlock ring, uint16_t size, int kick_fd, RingFormat format,
                         uint32_t align)
    : ring_(make_ring(std::move(ring), size, format, align)), kick_fd_(kick_fd) {}

bool DriverQueue::add(std::span<const Segment> readable, std::span<const Segment> writable,
                      uint64_t token) {
    const size_t total = readable.size() + writable.size();
    if (total == 0 || total > ring_->free_descriptors()) return false;
    ring_->add(readable, writable, token);
    return true;
}

void DriverQueue::use_indirect(DmaBlock tables, uint32_t max_segments) {
    assert(tables.bytes >= indirect_bytes(size(), max_segments));
    tables_ = std::move(tables);
    max_indirect_ = max_segments;
}

bool DriverQueue::add_indirect(std::span<const Segment> readable, std::span<const Segment> writable,
                               uint64_t token) {
    const size_t total = readable.size() + writable.size();
    if (total == 0 || total > max_indirect_ || ring_->free_descriptors() == 0) return false;
    const uint64_t table = indirect_bytes(ring_->next_id(), max_indirect_);
    for (size_t i = 0; i < total; ++i) {
        const bool write = i >= readable.size();
        const Segment& segment = write ? writable[i - readable.size()] : readable[i];
        // A descriptor does not cross a page: tables start on multiples of its size.
        *reinterpret_cast<virtq_desc*>(tables_.at(table + i * sizeof(virtq_desc))) =
            ring_->table_entry(segment, write, uint16_t(i), i + 1 == total);
    }
    ring_->add_table({tables_.bus + table, uint32_t(total * sizeof(virtq_desc))},
                     total_bytes(writable), token);
    return true;
}

bool DriverQueue::kick() {
    publish();
    if (!ring_->device_wants_signal() || kick_fd_ < 0) return false;
    signal_eventfd(kick_fd_);
    return true;
}

}  // namespace viommu::guest
