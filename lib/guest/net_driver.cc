// SPDX-License-Identifier: BSD-3-Clause
#include "net_driver.hh"

#include <algorithm>
#include <cassert>

#include "eventfd.hh"

namespace viommu::guest {

using namespace wire;

Result<std::unique_ptr<NetDriver>> NetDriver::connect(Memory& memory, const NetOptions& options) {
    std::unique_ptr<NetDriver> driver(new NetDriver(memory, options));
    auto frontend = Frontend::connect(options.frontend);
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
    if ((acked_ & bit(VIRTIO_NET_F_MAC)) == 0) return {};
    return frontend_.read_config(0, std::as_writable_bytes(std::span(&config_, 1)), 1);
}

std::array<uint8_t, 6> NetDriver::mac() const {
    std::array<uint8_t, 6> mac;
    std::copy_n(config_.mac, mac.size(), mac.begin());
    return mac;
}

Result<void> NetDriver::make_queue(Queue& q, uint16_t size, uint16_t buffers, Access access) {
    const RingFormat format = RingFormat::of(acked_);
    if (!DriverQueue::is_size(size, format) || buffers == 0)
        return fail("{}: a queue of {} entries is not possible, or has no room for a packet",
                    options_.frontend.socket, size);
    for (Fd* fd : {&q.kick, &q.call}) {
        auto made = make_eventfd();
        if (!made) return tl::unexpected(made.error());
        *fd = std::move(*made);
    }
    auto ring = dma_->allocate(DriverQueue::ring_bytes(size, format));
    if (!ring) return tl::unexpected(ring.error());
    q.ring = *ring;
    q.queue.emplace(std::move(*ring), size, q.kick.get(), format);
    q.queue->want_interrupts(false);
    auto pool = BufferPool::create(memory_, *dma_, buffers, options_.buffer_bytes, access,
                                   options_.buffer_maps);
    if (!pool) return tl::unexpected(pool.error());
    q.buffers.emplace(std::move(*pool));
    return {};
}

Result<void> NetDriver::make_indirect_tables() {
    constexpr uint32_t kSegments = 2;
    auto tables = dma_->allocate(DriverQueue::indirect_bytes(options_.tx_queue_size, kSegments));
    if (!tables) return tl::unexpected(tables.error());
    tables_ = *tables;
    tx_.queue->use_indirect(std::move(*tables), kSegments);
    return {};
}

QueueSetup NetDriver::setup_of(const Queue& q) const {
    return {q.index,         q.queue->size(), q.queue->desc(), q.queue->avail(),
            q.queue->used(), q.kick.get(),    q.call.get(),    {}};
}

Result<void> NetDriver::start(Dma& dma) {
    assert(dma_ == nullptr);
    dma_ = &dma;
    if (auto ok = negotiate(); !ok) return ok;
    const uint16_t rx = options_.rx_queue_size, tx = options_.tx_queue_size;
    if (auto ok = make_queue(rx_, rx, rx_buffers(), Access::kWrite); !ok) return ok;
    const uint16_t tx_buffers = buffers_of(uint16_t(tx / descriptors_per_packet()));
    if (auto ok = make_queue(tx_, tx, tx_buffers, Access::kRead); !ok) return ok;
    if (options_.tx_layout == TxLayout::kIndirect)
        if (auto ok = make_indirect_tables(); !ok) return ok;
    const QueueSetup setups[] = {setup_of(rx_), setup_of(tx_)};
    if (auto ok = frontend_.activate(acked_, memory_, setups); !ok) return ok;

    free_tx_.clear();
    for (uint16_t i = tx_.buffers->count(); i > 0; --i) free_tx_.push_back(uint16_t(i - 1));
    arrived_.clear();
    for (uint16_t i = 0; i < rx_.buffers->count(); ++i) arrived_.push_back({i, 0});
    return repost();
}

Result<void> NetDriver::stop() {
    assert(dma_ != nullptr);
    if (auto bases = frontend_.reset(); !bases) return tl::unexpected(bases.error());
    // What the device had not returned is ours again by the reset.
    const bool per_packet = options_.buffer_maps == BufferMaps::kMappingPerPacket;
    for (uint16_t i = 0; per_packet && i < rx_.buffers->count(); ++i)
        if (auto ok = rx_.buffers->take_back(i); !ok) return ok;
    for (uint16_t i = 0; per_packet && i < tx_.buffers->count(); ++i)
        if (std::find(free_tx_.begin(), free_tx_.end(), i) == free_tx_.end())
            if (auto ok = tx_.buffers->take_back(i); !ok) return ok;
    for (Queue* q : {&rx_, &tx_}) {
        if (auto ok = q->buffers->release(); !ok) return ok;
        if (auto ok = dma_->release(q->ring); !ok) return ok;
        q->queue.reset();
        q->buffers.reset();
    }
    if (tables_.bytes != 0)
        if (auto ok = dma_->release(std::exchange(tables_, {})); !ok) return ok;
    dma_ = nullptr;
    return {};
}

Result<void> NetDriver::reconnect() {
    if (auto ok = frontend_.reconnect(); !ok) return ok;
    const QueueSetup setups[] = {setup_of(rx_), setup_of(tx_)};
    if (auto ok = frontend_.activate(acked_, memory_, setups); !ok) return ok;
    rx_.queue->kick();
    tx_.queue->kick();
    return {};
}

/// QEMU starts the notifiers anew and signals each; Cloud Hypervisor signals nothing.
Result<void> NetDriver::resume() {
    if (auto ok = frontend_.resume(); !ok) return ok;
    if (options_.frontend.vmm == Vmm::kQemu)
        for (Queue* q : {&rx_, &tx_}) signal_eventfd(q->kick.get());
    return {};
}

Result<void> NetDriver::check(const Queue& q) const {
    if (q.queue->broken().empty()) return {};
    return fail("{}: {} queue: {}", options_.frontend.socket, q.index == 0 ? "receive" : "transmit",
                q.queue->broken());
}

// ---- transmit

Result<bool> NetDriver::transmit(std::span<const std::byte> packet) {
    const auto sent = transmit(1, [&](std::span<std::byte> room) {
        assert(packet.size() <= room.size());
        std::copy(packet.begin(), packet.end(), room.begin());
        return uint32_t(packet.size());
    });
    if (!sent) return tl::unexpected(sent.error());
    return *sent == 1;
}

/// Into the ring, but not yet seen by the device.
Result<void> NetDriver::queue_packet(uint16_t buffer, uint32_t bytes) {
    assert(kHeaderBytes + bytes <= options_.buffer_bytes);
    const virtio_net_hdr header{};
    std::memcpy(tx_.buffers->data(buffer).data(), &header, kHeaderBytes);
    const auto bus = tx_.buffers->lend(buffer);
    if (!bus) return tl::unexpected(bus.error());
    const Segment whole{*bus, kHeaderBytes + bytes};
    const Segment two[] = {{*bus, kHeaderBytes}, {*bus + kHeaderBytes, bytes}};
    [[maybe_unused]] bool added = false;
    switch (options_.tx_layout) {
        case TxLayout::kOneSegment:
            added = tx_.queue->add(std::span(&whole, 1), {}, buffer);
            break;
        case TxLayout::kTwoSegments:
            added = tx_.queue->add(two, {}, buffer);
            break;
        case TxLayout::kIndirect:
            added = tx_.queue->add_indirect(two, {}, buffer);
            break;
    }
    assert(added);  // can_send()
    ++counters_.tx_packets;
    counters_.tx_bytes += bytes;
    return {};
}

Result<void> NetDriver::send_queued() {
    // The device must not see a descriptor before what it points to is mapped.
    if (auto ok = tx_.buffers->sync(); !ok) return ok;
    tx_.queue->kick();
    return {};
}

Result<bool> NetDriver::transmit_segments(std::span<const Segment> segments) {
    if (auto ok = reap(); !ok) return tl::unexpected(ok.error());
    if (!tx_.queue->add(segments, {}, kForeign)) return false;
    ++counters_.tx_packets;
    for (const auto& s : segments) counters_.tx_bytes += s.bytes;
    tx_.queue->kick();
    return true;
}

Result<void> NetDriver::reap() {
    reaped_.clear();
    while (const auto done = tx_.queue->pop()) {
        ++counters_.tx_done;
        if (done->token == kForeign) continue;
        const auto buffer = uint16_t(done->token);
        if (auto ok = tx_.buffers->take_back(buffer); !ok) return ok;
        reaped_.push_back(buffer);
    }
    if (auto ok = tx_.buffers->sync(); !ok) return ok;
    free_tx_.insert(free_tx_.end(), reaped_.begin(), reaped_.end());
    return check(tx_);
}

Result<void> NetDriver::drain(Milliseconds timeout) {
    Patience patience(timeout);
    do {
        if (auto ok = reap(); !ok) return ok;
        if (tx_.queue->in_flight() == 0) return {};
    } while (patience.wait());
    return fail("{}: {} packets were not taken in {} ms", options_.frontend.socket,
                tx_.queue->in_flight(), timeout.count());
}

// ---- receive

Result<void> NetDriver::post(uint16_t buffer) {
    const auto bus = rx_.buffers->lend(buffer);
    if (!bus) return tl::unexpected(bus.error());
    const Segment in{*bus, options_.buffer_bytes};
    [[maybe_unused]] const bool added = rx_.queue->add({}, std::span(&in, 1), buffer);
    assert(added);  // one descriptor per buffer
    return {};
}

/// Give the device again what has been delivered.
Result<void> NetDriver::repost() {
    if (arrived_.empty()) return {};
    for (const auto& piece : arrived_)
        if (auto ok = post(piece.buffer); !ok) return ok;
    arrived_.clear();
    if (auto ok = rx_.buffers->sync(); !ok) return ok;
    rx_.queue->kick();
    return {};
}

/// Up to `max` packets into arrivals_, their buffers into arrived_, unmapped if that is due.
Result<void> NetDriver::collect(uint32_t max) {
    arrivals_.clear();
    while (arrivals_.size() < max) {
        const auto done = rx_.queue->pop();
        if (!done) break;
        Arrival arrival{uint32_t(arrived_.size()), 1};
        const auto first = uint16_t(done->token);
        arrived_.push_back({first, done->bytes});
        virtio_net_hdr header;
        std::memcpy(&header, rx_.buffers->data(first).data(), sizeof header);
        bool well_formed = done->bytes >= kHeaderBytes && done->bytes <= options_.buffer_bytes;
        const bool mergeable = (acked_ & bit(VIRTIO_NET_F_MRG_RXBUF)) != 0;
        if (mergeable && header.num_buffers == 0) well_formed = false;
        // The device publishes the buffers of a packet together, so they are there or never will
        // be.
        for (; well_formed && mergeable && arrival.pieces < header.num_buffers; ++arrival.pieces) {
            const auto next = rx_.queue->pop();
            if (next) arrived_.push_back({uint16_t(next->token), next->bytes});
            well_formed = next && next->bytes <= options_.buffer_bytes;
        }
        if (well_formed)
            arrivals_.push_back(arrival);
        else
            ++counters_.rx_malformed;
    }
    for (const auto& piece : arrived_)
        if (auto ok = rx_.buffers->take_back(piece.buffer); !ok) return ok;
    if (auto ok = rx_.buffers->sync(); !ok) return ok;
    return check(rx_);
}

std::span<const std::byte> NetDriver::packet_of(const Arrival& arrival) {
    const auto data = [&](uint32_t i) {
        const Piece& piece = arrived_[arrival.first + i];
        return rx_.buffers->data(piece.buffer).first(piece.bytes);
    };
    std::span<const std::byte> packet = data(0).subspan(kHeaderBytes);
    if (arrival.pieces > 1) {
        merged_.assign(packet.begin(), packet.end());
        for (uint32_t i = 1; i < arrival.pieces; ++i)
            merged_.insert(merged_.end(), data(i).begin(), data(i).end());
        packet = merged_;
    }
    ++counters_.rx_packets;
    counters_.rx_bytes += packet.size();
    return packet;
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

}  // namespace viommu::guest
