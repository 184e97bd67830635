// SPDX-License-Identifier: BSD-3-Clause
#include "net_driver.hh"

#include <cassert>

#include "eventfd.hh"

namespace viommu::guest {

using namespace wire;

namespace {

constexpr unsigned kCtrlVq = 17, kMq = 22, kRss = 60;  // VIRTIO_NET_F_*
constexpr uint8_t kClassMq = 4, kPairsSet = 0, kRssConfig = 1;
constexpr uint32_t kConfigChangeMsg = 2;  // VHOST_USER_BACKEND_CONFIG_CHANGE_MSG

template <class T>
void append(std::vector<std::byte>& bytes, const T& value) {
    const auto raw = std::as_bytes(std::span(&value, 1));
    bytes.insert(bytes.end(), raw.begin(), raw.end());
}

}  // namespace

Result<std::unique_ptr<NetDriver>> NetDriver::connect(Memory& memory, const NetOptions& options) {
    std::unique_ptr<NetDriver> driver(new NetDriver(memory, options));
    auto& frontend_options = driver->options_.frontend;
    const bool control = (options.features & bit(kCtrlVq)) != 0;
    frontend_options.queues = uint16_t(2 * options.pairs + control);
    auto frontend = Frontend::connect(frontend_options);
    if (!frontend) return tl::unexpected(frontend.error());
    driver->frontend_ = std::move(*frontend);
    return driver;
}

NetDriver::~NetDriver() {
    // Whatever the backend still does, it does without us; the pages go with the memory.
    frontend_.disconnect();
}

Result<void> NetDriver::negotiate() {
    uint64_t wanted = options_.features;
    const bool indirect = options_.tx_layout == TxLayout::kIndirect ||
                          (options_.required & bit(VIRTIO_F_INDIRECT_DESC)) != 0;
    if (!indirect) wanted &= ~bit(VIRTIO_F_INDIRECT_DESC);
    acked_ = frontend_.features() & wanted;
    uint64_t needed = options_.required;
    if (options_.tx_layout == TxLayout::kIndirect) needed |= bit(VIRTIO_F_INDIRECT_DESC);
    if (const uint64_t lacks = needed & ~acked_; lacks != 0)
        return fail("{}: features {:#x} lack {:#x}, which this driver needs",
                    options_.frontend.socket, frontend_.features(), lacks);
    const uint64_t in_config = bit(VIRTIO_NET_F_MAC) | bit(VIRTIO_NET_F_MTU) |
                               bit(VIRTIO_NET_F_STATUS) | bit(kMq) | bit(kRss);
    if ((acked_ & in_config) == 0) return {};
    if (auto ok = read_config(); !ok) return ok;
    if ((acked(kMq) || acked(kRss)) && config_.max_virtqueue_pairs < options_.pairs)
        return fail("{}: the device has {} pairs of queues, {} were asked for",
                    options_.frontend.socket, uint16_t(config_.max_virtqueue_pairs),
                    options_.pairs);
    return {};
}

Result<void> NetDriver::read_config() {
    return frontend_.read_config(0, std::as_writable_bytes(std::span(&config_, 1)), 1);
}

std::array<uint8_t, 6> NetDriver::mac() const {
    std::array<uint8_t, 6> mac;
    std::copy_n(config_.mac, mac.size(), mac.begin());
    return mac;
}

NetQueueOptions NetDriver::queue_options(uint16_t index) const {
    const bool tx = index % 2 != 0;
    const auto& o = options_;
    return {.name = fmt::format("{}: {} queue {}", o.frontend.socket, tx ? "transmit" : "receive",
                                index / 2),
            .index = index,
            .size = tx ? o.tx_queue_size : o.rx_queue_size,
            .max_buffers = o.max_buffers,
            .buffer_bytes = tx && o.tx_buffer_bytes != 0 ? o.tx_buffer_bytes : o.buffer_bytes,
            .segment_bytes = tx ? o.tx_segment_bytes : o.rx_segment_bytes,
            .maps = o.buffer_maps,
            .layout = o.tx_layout,
            .format = RingFormat::of(acked_),
            .mergeable = acked(VIRTIO_NET_F_MRG_RXBUF)};
}

template <class Queue>
Result<void> NetDriver::add_queue(std::vector<std::unique_ptr<Queue>>& queues, uint16_t index) {
    auto queue = Queue::create(memory_, *dma_, queue_options(index));
    if (!queue) return tl::unexpected(queue.error());
    queues.push_back(std::move(*queue));
    return {};
}

template <class F>
void NetDriver::for_each_queue(F&& f) {
    for (size_t i = 0; i < rx_.size(); ++i) f(*rx_[i]), f(*tx_[i]);
    if (control_) f(*control_);
}

Result<void> NetDriver::start(Dma& dma) {
    assert(dma_ == nullptr);
    dma_ = &dma;
    if (auto ok = negotiate(); !ok) return ok;
    for (uint16_t pair = 0; pair < options_.pairs; ++pair) {
        if (auto ok = add_queue(rx_, uint16_t(2 * pair)); !ok) return ok;
        if (auto ok = add_queue(tx_, uint16_t(2 * pair + 1)); !ok) return ok;
    }
    if (acked(kCtrlVq)) {
        // Behind all pairs that the device has, whether they are used or not (5.1.2).
        const bool many = acked(kMq) || acked(kRss);
        const uint16_t pairs = many ? uint16_t(config_.max_virtqueue_pairs) : uint16_t{1};
        auto control = NetControl::create(dma, uint16_t(2 * pairs), RingFormat::of(acked_),
                                          options_.frontend.timeout);
        if (!control) return tl::unexpected(control.error());
        control_ = std::move(*control);
    }
    std::vector<QueueSetup> setups;
    for_each_queue([&](auto& q) { setups.push_back(q.setup()); });
    if (auto ok = frontend_.activate(acked_, memory_, setups); !ok) return ok;
    for (const auto& q : rx_)
        if (auto ok = q->post(); !ok) return ok;
    return acked(kMq) && options_.pairs > 1 ? use_pairs(options_.pairs) : Result<void>{};
}

Result<void> NetDriver::stop() {
    assert(dma_ != nullptr);
    if (auto bases = frontend_.reset(); !bases) return tl::unexpected(bases.error());
    Result<void> result;
    for_each_queue([&](auto& q) {
        if (result) result = q.release();
    });
    if (!result) return result;
    rx_.clear();
    tx_.clear();
    control_.reset();
    dma_ = nullptr;
    return {};
}

Result<void> NetDriver::reconnect() {
    // An answer on the new connection comes after the end of the old one's service.
    if (auto ok = frontend_.reconnect(); !ok) return ok;
    std::vector<QueueSetup> setups;
    for_each_queue([&](auto& q) { setups.push_back(q.setup_again()); });
    if (auto ok = frontend_.activate(acked_, memory_, setups); !ok) return ok;
    for_each_queue([](auto& q) { q.queue().kick(); });
    return {};
}

/// QEMU starts the notifiers anew and signals each; Cloud Hypervisor signals nothing.
Result<void> NetDriver::resume() {
    if (auto ok = frontend_.resume(); !ok) return ok;
    if (options_.frontend.vmm == Vmm::kQemu) for_each_queue([](auto& q) { q.signal(); });
    return {};
}

Result<bool> NetDriver::transmit(std::span<const std::byte> packet) {
    const auto sent = transmit(1, [&](std::span<std::byte> room) {
        assert(packet.size() <= room.size());
        std::copy(packet.begin(), packet.end(), room.begin());
        return uint32_t(packet.size());
    });
    if (!sent) return tl::unexpected(sent.error());
    return *sent == 1;
}

Result<std::optional<std::vector<std::byte>>> NetDriver::receive(Milliseconds timeout) {
    std::optional<std::vector<std::byte>> packet;
    Patience patience(timeout);
    do {
        const auto got = receive(1, [&](std::span<const std::byte> bytes) {
            packet.emplace(bytes.begin(), bytes.end());
        });
        if (!got) return tl::unexpected(got.error());
    } while (!packet && patience.wait());
    return packet;
}

// ---- control

Result<void> NetDriver::ask(uint8_t class_, uint8_t command, std::span<const std::byte> data) {
    if (!control_) return fail("{}: there is no controlq", options_.frontend.socket);
    const auto ack = control_->command(class_, command, data);
    if (!ack) return tl::unexpected(ack.error());
    if (*ack != 0)
        return fail("{}: command {}.{} was refused ({})", options_.frontend.socket, class_,
                    command, *ack);
    return {};
}

Result<void> NetDriver::use_pairs(uint16_t pairs) {
    std::vector<std::byte> data;
    append(data, le16{pairs});
    return ask(kClassMq, kPairsSet, data);
}

Result<void> NetDriver::set_rss(const Rss& rss) {
    std::vector<std::byte> data;
    append(data, le32{rss.hash_types});
    append(data, le16{uint16_t(rss.table.size() - 1)});
    // Queues are named by half the index of a receiveq (5.1.6.5.7).
    append(data, le16{rss.unclassified});
    for (const uint16_t pair : rss.table) append(data, le16{pair});
    append(data, le16{rss.max_tx_pairs});
    append(data, uint8_t(rss.key.size()));
    data.insert(data.end(), rss.key.begin(), rss.key.end());
    return ask(kClassMq, kRssConfig, data);
}

Result<bool> NetDriver::config_changed() {
    Channel& channel = frontend_.backend_requests();
    bool changed = false;
    while (channel.is_open() && channel.readable(Milliseconds(0))) {
        vhost_user_header header;
        if (auto ok = channel.receive(std::as_writable_bytes(std::span(&header, 1))); !ok)
            return tl::unexpected(ok.error());
        if (header.request != kConfigChangeMsg || header.size != 0)
            return fail("{}: the device sent message {} of {} bytes to the VMM",
                        options_.frontend.socket, uint32_t(header.request),
                        uint32_t(header.size));
        changed = true;
    }
    if (!changed) return false;
    if (auto ok = read_config(); !ok) return tl::unexpected(ok.error());
    return true;
}

NetDriver::Counters NetDriver::counters() const {
    Counters sum;
    for (const auto& q : tx_) {
        sum.tx_packets += q->counters().packets;
        sum.tx_bytes += q->counters().bytes;
        sum.tx_done += q->counters().done;
    }
    for (const auto& q : rx_) {
        sum.rx_packets += q->counters().packets;
        sum.rx_bytes += q->counters().bytes;
        sum.rx_malformed += q->counters().malformed;
    }
    return sum;
}

}  // namespace viommu::guest
