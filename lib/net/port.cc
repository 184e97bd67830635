// SPDX-License-Identifier: BSD-3-Clause
/// Control side of a port: features, configuration, where the rings are.
#include "port.hh"

#include <algorithm>
#include <utility>

namespace viommu::net {

using namespace wire;

namespace {

constexpr uint64_t bit(unsigned n) { return uint64_t{1} << n; }

constexpr uint32_t kEthernetOverhead = 14 + 8;

}  // namespace

Result<std::unique_ptr<NetPort>> NetPort::create(const Config& config,
                                                 const MakeReader& make_reader,
                                                 rte_mempool& pool) {
    if (config.queue_pairs == 0 || config.queue_pairs > kMaxPairs)
        return fail("{} queue pairs: there can be 1 to {}", config.queue_pairs, kMaxPairs);
    const uint32_t max_frame = config.mtu ? *config.mtu + kEthernetOverhead : offload::kMaxBytes;
    std::unique_ptr<NetPort> port(new NetPort(config));
    if (config.control_queue) {
        auto reader = make_reader();
        if (!reader) return tl::unexpected(reader.error());
        port->control_queue_ =
            std::make_unique<ControlQueue>(std::move(*reader), port->control_);
    }
    for (uint16_t pair = 0; pair < config.queue_pairs; ++pair) {
        auto receive = make_reader();
        if (!receive) return tl::unexpected(receive.error());
        auto transmit = make_reader();
        if (!transmit) return tl::unexpected(transmit.error());
        port->pairs_.push_back(std::unique_ptr<Pair>(
            new Pair{.receive{std::move(*receive), port->control_, pair, pool, max_frame},
                     .transmit{std::move(*transmit), pool, max_frame}}));
        if (port->control_queue_) port->control_queue_->add(port->pairs_.back()->receive.bursts());
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
           offered({.mtu = config_.mtu.has_value(),
                    .offloads = config_.offloads,
                    .may_leave = config_.may_leave,
                    .control_queue = config_.control_queue,
                    .queue_pairs = config_.queue_pairs,
                    .speed = config_.speed_mbps.has_value()});
}

void NetPort::features_acked(uint64_t features) noexcept {
    // Whether a migration logs pages says nothing about the driver.
    const uint64_t acked = negotiated(features & ~bit(VHOST_F_LOG_ALL));
    if (acked == acked_) return;
    acked_ = acked;
    control_.reset(acked);
}

void NetPort::config_read(uint32_t offset, std::span<std::byte> out) const noexcept {
    // What the guest has set it to is gone after a reset, of which we hear when the queues start.
    // Who reads before that is a driver that begins: a paused guest does not read.
    const bool reset = !control_queue_ || !control_queue_->runs();
    const ConfigSpace space{.mac = reset ? config_.mac : control_.filter().mac(),
                            .link_up = link_up_.load(std::memory_order_relaxed),
                            .queue_pairs = config_.queue_pairs,
                            .mtu = config_.mtu,
                            .speed_mbps = config_.speed_mbps,
                            .rss = (features() & bit(VIRTIO_NET_F_RSS)) != 0};
    wire::read_config_window(space.layout(), offset, out);
}

Result<void> NetPort::use_readers(const MakeReader& make_reader) {
    std::vector<xlate::Reader> readers;
    readers.reserve(this->readers());
    while (readers.size() < this->readers()) {
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

/// 5.1.2: where the controlq is depends on what the driver has accepted.
bool NetPort::is_control(uint16_t index) const noexcept {
    return control_queue_ && (acked_ & bit(VIRTIO_NET_F_CTRL_VQ)) != 0 &&
           index == (control_.says_pairs() ? 2 * config_.queue_pairs : 2);
}

NetQueue* NetPort::queue(uint16_t index) noexcept {
    if (index >= 2 * config_.queue_pairs) return nullptr;
    Pair& pair = *pairs_[index / 2];
    return index % 2 == 0 ? static_cast<NetQueue*>(&pair.receive) : &pair.transmit;
}

void NetPort::queue_started(const virtq::Vring& vring) {
    if (is_control(vring.index))
        control_queue_->start(in_iovas(vring), vring.base, acked_);
    else if (NetQueue* q = queue(vring.index))
        q->start(in_iovas(vring), vring.base, acked_);
    queues_changed();
}

uint32_t NetPort::queue_stopped(uint16_t index) noexcept {
    uint32_t base = 0;
    if (is_control(index))
        base = control_queue_->stop();
    else if (NetQueue* q = queue(index))
        base = q->stop();
    queues_changed();
    return base;
}

void NetPort::queues_changed() {
    uint16_t running = 0;
    while (running < pairs_.size() && pairs_[running]->receive.runs() &&
           pairs_[running]->transmit.runs())
        ++running;
    if (!control_.says_pairs()) control_.set_pairs(std::max<uint16_t>(1, running));
    for (const auto& pair : pairs_) {
        pair->wake_fds.clear();
        for (const int fd : {pair->receive.kick_fd(), pair->transmit.kick_fd()})
            if (fd >= 0) pair->wake_fds.push_back(fd);
    }
    if (control_queue_ && control_queue_->kick_fd() >= 0)
        pairs_[0]->wake_fds.push_back(control_queue_->kick_fd());
}

bool NetPort::arm(uint16_t pair) noexcept {
    const bool armed = pairs_[pair]->transmit.arm();
    return pair == 0 && control_queue_ ? control_queue_->arm() && armed : armed;
}

void NetPort::disarm(uint16_t pair) noexcept {
    pairs_[pair]->transmit.disarm();
    if (pair == 0 && control_queue_) control_queue_->disarm();
}

std::chrono::microseconds NetPort::sleep_limit(uint16_t pair) const noexcept {
    const auto limit = pairs_[pair]->transmit.sleep_limit();
    return pair == 0 && control_queue_ ? std::min(limit, control_queue_->sleep_limit()) : limit;
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
