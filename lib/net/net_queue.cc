// SPDX-License-Identifier: BSD-3-Clause
#include "net_queue.hh"

namespace viommu::net {

namespace {
/// How long a stalled ring may wait to be looked at again while the lcore sleeps.
constexpr std::chrono::microseconds kStallLatency{1000};
}  // namespace

void NetQueue::start(const std::optional<virtq::Vring>& vring, uint32_t base, uint64_t acked) {
    acked_ = acked;
    base_ = base;
    vring_ = vring;
    // Without VERSION_1 the header has another size and rings another byte order.
    if (!this->acked(wire::VIRTIO_F_VERSION_1) || (vring_ && !vring_->is_acceptable(acked)))
        vring_.reset();
    if (!vring_) counters_.ring_unusable.add();
    ring_.unbind();
    started_ = stalled_ = anew_ = false;
    if (vring_) chain_.reserve(vring_->size);
    const Burst bind_now(*this);  // so that notifications are off from the start
}

uint32_t NetQueue::stop() noexcept {
    if (started_ && vring_) end_ = ring_.end(*vring_);
    ring_.unbind();
    vring_.reset();
    return started_ ? ring_.next_base() : base_;
}

/// See whether the ring is still there when something was unmapped, and bind it again when it has
/// moved. Inside a section: what is found holds until its end, and while the generation stands.
bool NetQueue::ready() noexcept {
    if (ring_.bound() && generation_ == reader_.generation()) [[likely]]
        return true;
    if (ring_.bound()) {
        // Nearly always something else was unmapped. This is no more than a few translations.
        space_.report_faults(false);
        const bool unmoved = ring_.is_unmoved(space_);
        space_.report_faults(true);
        if (unmoved) {
            generation_ = reader_.generation();
            return true;
        }
    }
    space_.report_faults(!stalled_);  // once per stall
    const bool bound = ring_.bind(space_, *vring_, acked_);
    space_.report_faults(true);
    if (!bound) {
        if (!stalled_) counters_.ring_unmapped.add();
        stalled_ = true;
        return false;
    }
    stalled_ = false;
    generation_ = reader_.generation();
    if (!started_) {
        anew_ = !end_ || !ring_.continues(*end_, *vring_);
        ring_.start_at_used_or(base_);
        started_ = true;
    }
    ring_.enable_notifications(false);
    return true;
}

virtq::Pop NetQueue::take_chain() noexcept {
    if (descriptors_ >= virtq::kBurstDescriptors) return virtq::Pop::kEmpty;
    const virtq::Pop pop = ring_.pop(chain_);
    if (pop != virtq::Pop::kEmpty) descriptors_ += chain_.descriptors();
    return pop;
}

void NetQueue::count_broken() noexcept {
    if (ring_.stats().broken.was() == broken_seen_) return;
    broken_seen_ = ring_.stats().broken.was();
    counters_.ring_broken.add();
}

bool NetQueue::arm() noexcept {
    const Burst burst(*this);
    return !burst || ring_.arm();
}

void NetQueue::disarm() noexcept {
    const Burst burst(*this);
    if (burst) ring_.enable_notifications(false);
}

std::chrono::microseconds NetQueue::sleep_limit() const noexcept {
    return vring_ && stalled_ ? kStallLatency : std::chrono::microseconds::max();
}

}  // namespace viommu::net
