// SPDX-License-Identifier: BSD-3-Clause
/// Control side of a port: features, configuration, where the rings are.
#include "port.hh"

#include <algorithm>
#include <utility>

namespace viommu::net {

using namespace wire;

namespace {

constexpr uint64_t bit(unsigned n) { return uint64_t{1} << n; }

/// The largest frame without an MTU: what a 16-bit IP length and an Ethernet header with two VLAN
/// tags can make.
constexpr uint32_t kMaxFrame = 65535 + 14 + 8;
constexpr uint32_t kEthernetOverhead = 14 + 8;

}  // namespace

Result<std::unique_ptr<NetPort>> NetPort::create(const Config& config,
                                                 const MakeReader& make_reader,
                                                 rte_mempool& pool) {
    if (config.queue_pairs == 0 || config.queue_pairs > kMaxPairs)
        return fail("{} queue pairs: there can be 1 to {}", config.queue_pairs, kMaxPairs);
    const uint32_t max_frame = config.mtu ? *config.mtu + kEthernetOverhead : kMaxFrame;
    std::unique_ptr<NetPort> port(new NetPort(config));
    for (uint16_t pair = 0; pair < config.queue_pairs; ++pair) {
        auto receive = make_reader();
        if (!receive) return tl::unexpected(receive.error());
        auto transmit = make_reader();
        if (!transmit) return tl::unexpected(transmit.error());
        port->pairs_.push_back(std::unique_ptr<Pair>(
            new Pair{.receive{std::move(*receive), max_frame},
                     .transmit{std::move(*transmit), pool, max_frame}}));
    }
    return port;
}

Result<std::unique_ptr<NetPort>> NetPort::create(const Config& config, table::Table& table,
                                                 xlate::FaultQueue& faults, rte_mempool& pool) {
    return create(
        config, [&] { return xlate::Reader::create(table, faults, config.endpoint); }, pool);
}

uint64_t NetPort::features() const noexcept {
    return bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_ACCESS_PLATFORM) | virtq::kRingFeatures |
           bit(VIRTIO_NET_F_MAC) | bit(VIRTIO_NET_F_STATUS) | bit(VIRTIO_NET_F_MRG_RXBUF) |
           (config_.mtu ? bit(VIRTIO_NET_F_MTU) : 0);
}

void NetPort::config_read(uint32_t offset, std::span<std::byte> out) const noexcept {
    virtio_net_config c{};
    std::copy(config_.mac.begin(), config_.mac.end(), c.mac);
    c.status = link_up_.load(std::memory_order_relaxed) ? VIRTIO_NET_S_LINK_UP : 0;
    c.max_virtqueue_pairs = config_.queue_pairs;
    c.mtu = config_.mtu.value_or(0);
    wire::read_config_window(c, offset, out);
}

Result<void> NetPort::use_readers(const MakeReader& make_reader) {
    std::vector<xlate::Reader> readers;
    readers.reserve(2 * pairs_.size());
    while (readers.size() < 2 * pairs_.size()) {
        auto reader = make_reader();
        if (!reader) return tl::unexpected(reader.error());
        readers.push_back(std::move(*reader));
    }
    for_each_queue([next = readers.begin()](NetQueue& q) mutable {
        q.use_reader(std::move(*next++));
    });
    return {};
}

bool NetPort::set_link(bool up) noexcept {
    return link_up_.exchange(up, std::memory_order_relaxed) != up;
}

void NetPort::memory_changed(std::shared_ptr<const virtq::MemoryMap> memory) {
    memory_ = std::move(memory);
    for_each_queue([this](NetQueue& q) { q.set_memory(memory_.get()); });
}

void NetPort::log_changed(std::shared_ptr<const virtq::DirtyLog> log) {
    log_ = std::move(log);
    for_each_queue([this](NetQueue& q) { q.set_dirty_log(log_.get()); });
}

std::optional<virtq::Vring> NetPort::in_iovas(const virtq::Vring& vring) const noexcept {
    const bool iovas = config_.ring_addresses == RingAddresses::kAuto
                           ? (acked_ & bit(VIRTIO_F_ACCESS_PLATFORM)) != 0
                           : config_.ring_addresses == RingAddresses::kIova;
    if (iovas) return vring;
    // The VMM's GPA is the guest's IOVA.
    return memory_ ? virtq::from_uva(vring, *memory_) : std::nullopt;
}

NetQueue* NetPort::queue(uint16_t index) noexcept {
    if (index >= 2 * config_.queue_pairs) return nullptr;
    Pair& pair = *pairs_[index / 2];
    return index % 2 == 0 ? static_cast<NetQueue*>(&pair.receive) : &pair.transmit;
}

void NetPort::queue_started(const virtq::Vring& vring) {
    NetQueue* q = queue(vring.index);
    if (q == nullptr) return;
    q->start(in_iovas(vring), vring.base, acked_);
    queues_changed();
}

uint32_t NetPort::queue_stopped(uint16_t index) noexcept {
    NetQueue* q = queue(index);
    if (q == nullptr) return 0;
    const uint32_t base = q->stop();
    queues_changed();
    return base;
}

void NetPort::queues_changed() {
    uint16_t running = 0;
    while (running < pairs_.size() && pairs_[running]->receive.runs() &&
           pairs_[running]->transmit.runs())
        ++running;
    active_.store(std::max<uint16_t>(1, running), std::memory_order_relaxed);
    for (const auto& pair : pairs_) {
        pair->wake_fds.clear();
        for (const int fd : {pair->receive.kick_fd(), pair->transmit.kick_fd()})
            if (fd >= 0) pair->wake_fds.push_back(fd);
    }
}

uint16_t NetPort::pair_for(const rte_mbuf&, uint16_t from) const noexcept {
    return uint16_t(from % active_pairs());
}

void NetPort::set_plain_way(bool on) noexcept {
    for (const auto& pair : pairs_) {
        pair->receive.set_plain_way(on);
        pair->transmit.set_plain_way(on);
    }
}

uint64_t NetPort::translations() const noexcept {
    uint64_t sum = 0;
    for_each_queue([&sum](const NetQueue& q) { sum += q.translations(); });
    return sum;
}

uint64_t NetPort::lost_faults() const noexcept {
    uint64_t sum = 0;
    for_each_queue([&sum](const NetQueue& q) { sum += q.lost_faults(); });
    return sum;
}

}  // namespace viommu::net
