// SPDX-License-Identifier: BSD-3-Clause
/// Control side of a port: features, configuration, where the rings are.
#include "port.hh"

#include <algorithm>
#include <cstring>

#include "burst.hh"

namespace viommu::net {

using namespace wire;

namespace {

constexpr uint64_t bit(unsigned n) { return uint64_t{1} << n; }

/// How long a stalled ring may wait to be looked at again while the lcore sleeps.
constexpr std::chrono::microseconds kStallLatency{1000};

/// The largest frame without an MTU: what a 16-bit IP length and an Ethernet header with two VLAN
/// tags can make.
constexpr uint32_t kMaxFrame = 65535 + 14 + 8;
constexpr uint32_t kEthernetOverhead = 14 + 8;

}  // namespace

Result<std::unique_ptr<NetPort>> NetPort::create(const Config& config, table::Table& table,
                                                 xlate::FaultQueue& faults, rte_mempool& pool) {
    auto reader = xlate::Reader::create(table, faults, config.endpoint);
    if (!reader) return tl::unexpected(reader.error());
    return std::unique_ptr<NetPort>(new NetPort(config, std::move(*reader), pool));
}

NetPort::NetPort(const Config& config, xlate::Reader reader, rte_mempool& pool)
    : config_(config), reader_(std::move(reader)), pool_(pool) {}

uint64_t NetPort::features() const noexcept {
    return bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_ACCESS_PLATFORM) | virtq::kRingFeatures |
           bit(VIRTIO_NET_F_MAC) | bit(VIRTIO_NET_F_STATUS) | bit(VIRTIO_NET_F_MRG_RXBUF) |
           (config_.mtu ? bit(VIRTIO_NET_F_MTU) : 0);
}

uint32_t NetPort::max_frame() const noexcept {
    return config_.mtu ? *config_.mtu + kEthernetOverhead : kMaxFrame;
}

void NetPort::config_read(uint32_t offset, std::span<std::byte> out) const noexcept {
    virtio_net_config c{};
    std::copy(config_.mac.begin(), config_.mac.end(), c.mac);
    c.status = VIRTIO_NET_S_LINK_UP;
    c.max_virtqueue_pairs = 1;
    c.mtu = config_.mtu.value_or(0);
    wire::read_config_window(c, offset, out);
}

void NetPort::memory_changed(std::shared_ptr<const virtq::MemoryMap> memory) {
    memory_ = std::move(memory);
    space_.set_memory(memory_.get());
}

void NetPort::log_changed(std::shared_ptr<const virtq::DirtyLog> log) {
    log_ = std::move(log);
    space_.set_dirty_log(log_.get());
}

std::optional<virtq::Vring> NetPort::in_iovas(const virtq::Vring& vring) const noexcept {
    const bool iovas = config_.ring_addresses == RingAddresses::kAuto
                           ? (acked_ & bit(VIRTIO_F_ACCESS_PLATFORM)) != 0
                           : config_.ring_addresses == RingAddresses::kIova;
    if (iovas) return vring;
    // The VMM's GPA is the guest's IOVA.
    return memory_ ? virtq::from_uva(vring, *memory_) : std::nullopt;
}

void NetPort::queue_started(const virtq::Vring& vring) {
    Queue* q = queue(vring.index);
    if (q == nullptr) return;
    q->base = vring.base;
    q->vring = in_iovas(vring);
    // Without VERSION_1 the header has another size and rings another byte order.
    if ((acked_ & bit(VIRTIO_F_VERSION_1)) == 0 || (q->vring && !q->vring->is_acceptable(acked_)))
        q->vring.reset();
    if (!q->vring) q->counters.ring_unusable.add();
    q->ring.unbind();
    q->started = q->stalled = false;
    if (q->vring) chain_.reserve(q->vring->size);
    collect_wake_fds();
    const Burst bind_now(*this, *q);  // so that notifications are off from the start
}

uint32_t NetPort::queue_stopped(uint16_t index) noexcept {
    Queue* q = queue(index);
    if (q == nullptr) return 0;
    q->ring.unbind();
    q->vring.reset();
    collect_wake_fds();
    return q->started ? q->ring.next_base() : q->base;
}

void NetPort::collect_wake_fds() {
    wake_fds_.clear();
    for (const Queue* q : {&receive_, &transmit_})
        if (q->vring && q->vring->kick_fd >= 0) wake_fds_.push_back(q->vring->kick_fd);
}

/// Bind the ring again if what it was bound to may have been taken away. Inside a section.
bool NetPort::ready(Queue& q) noexcept {
    if (q.ring.bound() && q.generation == reader_.generation()) [[likely]]
        return true;
    space_.report_faults(!q.stalled);  // once per stall
    const bool bound = q.ring.bind(space_, *q.vring, acked_);
    space_.report_faults(true);
    if (!bound) {
        if (!q.stalled) q.counters.ring_unmapped.add();
        q.stalled = true;
        return false;
    }
    q.stalled = false;
    q.generation = reader_.generation();
    if (!q.started) {
        q.ring.start_at_used_or(q.base);
        q.started = true;
    }
    q.ring.enable_notifications(false);
    return true;
}

virtq::Pop NetPort::take_chain(Queue& q) noexcept {
    if (descriptors_ >= virtq::kBurstDescriptors) return virtq::Pop::kEmpty;
    const virtq::Pop pop = q.ring.pop(chain_);
    if (pop != virtq::Pop::kEmpty) descriptors_ += chain_.descriptors();
    return pop;
}

void NetPort::count_broken(Queue& q) noexcept {
    if (q.ring.stats().broken.was() == q.broken_seen) return;
    q.broken_seen = q.ring.stats().broken.was();
    q.counters.ring_broken.add();
}

bool NetPort::arm() noexcept {
    // Buffers that the guest adds to the receiveq wake nobody: they are looked for when there is a
    // packet for them.
    const Burst burst(*this, transmit_);
    return !burst || transmit_.ring.arm();
}

void NetPort::disarm() noexcept {
    const Burst burst(*this, transmit_);
    if (burst) transmit_.ring.enable_notifications(false);
}

std::chrono::microseconds NetPort::sleep_limit() const noexcept {
    return transmit_.vring && transmit_.stalled ? kStallLatency : std::chrono::microseconds::max();
}

}  // namespace viommu::net
