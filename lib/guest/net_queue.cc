// SPDX-License-Identifier: BSD-3-Clause
#include "net_queue.hh"

#include <algorithm>
#include <cassert>

#include "eventfd.hh"

namespace viommu::guest {

using namespace wire;

// ---- both directions

Result<void> NetQueue::make(Access access, uint16_t descriptors_per_packet) {
    const auto& o = options_;
    const auto buffers = uint16_t(o.size / descriptors_per_packet);
    if (!DriverQueue::is_size(o.size, o.format) || buffers == 0)
        return fail("{}: a queue of {} entries is not possible, or has no room for a packet",
                    o.name, o.size);
    if (o.buffer_bytes < kHeaderBytes)
        return fail("{}: a buffer of {} bytes has no room for a header", o.name, o.buffer_bytes);
    for (Fd* fd : {&kick_, &call_}) {
        auto made = make_eventfd();
        if (!made) return tl::unexpected(made.error());
        *fd = std::move(*made);
    }
    auto ring = dma_.allocate(DriverQueue::ring_bytes(o.size, o.format));
    if (!ring) return tl::unexpected(ring.error());
    ring_ = *ring;
    queue_.emplace(std::move(*ring), o.size, kick_.get(), o.format);
    queue_->want_interrupts(false);
    const auto count = o.max_buffers == 0 ? buffers : std::min(buffers, o.max_buffers);
    auto pool = BufferPool::create(memory_, dma_, count, o.buffer_bytes, access, o.maps);
    if (!pool) return tl::unexpected(pool.error());
    pool_.emplace(std::move(*pool));
    return {};
}

Result<void> NetQueue::release() {
    if (auto ok = pool_->release(); !ok) return ok;
    return dma_.release(ring_);
}

QueueSetup NetQueue::setup() const {
    return {options_.index, queue_->size(), queue_->desc(), queue_->avail(),
            queue_->used(), kick_.get(),    call_.get(),    {}};
}

QueueSetup NetQueue::setup_again() {
    while (const auto done = queue_->pop()) aside_.push_back(*done);
    auto setup = this->setup();
    // Of a packed ring no VMM can guess where it was.
    if (options_.format.packed) setup.base = queue_->base();
    return setup;
}

void NetQueue::signal() const { signal_eventfd(kick_.get()); }

std::optional<Completion> NetQueue::pop() {
    if (aside_.empty()) return queue_->pop();
    const Completion done = aside_.front();
    aside_.pop_front();
    return done;
}

Result<void> NetQueue::check() const {
    if (queue_->broken().empty()) return {};
    return fail("{}: {}", options_.name, queue_->broken());
}

void NetQueue::cut(BusAddress at, uint32_t bytes) {
    const uint32_t most = options_.segment_bytes == 0 ? bytes : options_.segment_bytes;
    for (; bytes > most; bytes -= most, at = at + most) segments_.push_back({at, most});
    if (bytes != 0) segments_.push_back({at, bytes});
}

// ---- transmit

Result<std::unique_ptr<TxQueue>> TxQueue::create(Memory& memory, Dma& dma,
                                                 const NetQueueOptions& options) {
    std::unique_ptr<TxQueue> q(new TxQueue(memory, dma, options));
    if (auto ok = q->make(Access::kRead, q->descriptors_per_packet()); !ok)
        return tl::unexpected(ok.error());
    for (uint16_t i = q->buffers(); i > 0; --i) q->free_.push_back(uint16_t(i - 1));
    if (options.layout != TxLayout::kIndirect) return q;
    auto tables = dma.allocate(DriverQueue::indirect_bytes(options.size, q->table_entries()));
    if (!tables) return tl::unexpected(tables.error());
    q->tables_ = *tables;
    q->queue_->use_indirect(std::move(*tables), q->table_entries());
    return q;
}

Result<void> TxQueue::release() {
    if (tables_.bytes != 0)
        if (auto ok = dma_.release(tables_); !ok) return ok;
    return NetQueue::release();
}

/// Into the ring, but not yet seen by the device.
Result<void> TxQueue::put(uint16_t buffer, const virtio_net_hdr& header, uint32_t bytes) {
    assert(kHeaderBytes + bytes <= options_.buffer_bytes);
    std::memcpy(pool_->data(buffer).data(), &header, kHeaderBytes);
    const auto bus = pool_->lend(buffer);
    if (!bus) return tl::unexpected(bus.error());
    segments_.clear();
    if (options_.layout == TxLayout::kOneSegment) {
        cut(*bus, kHeaderBytes + bytes);
    } else {
        segments_.push_back({*bus, kHeaderBytes});
        cut(*bus + kHeaderBytes, bytes);
    }
    [[maybe_unused]] const bool added = options_.layout == TxLayout::kIndirect
                                            ? queue_->add_indirect(segments_, {}, buffer)
                                            : queue_->add(segments_, {}, buffer);
    assert(added);  // can_send()
    ++counters_.packets;
    counters_.bytes += bytes;
    return {};
}

Result<void> TxQueue::publish() {
    // The device must not see a descriptor before what it points to is mapped.
    if (auto ok = pool_->sync(); !ok) return ok;
    queue_->kick();
    return {};
}

bool TxQueue::add_segments(std::span<const Segment> segments) {
    if (!queue_->add(segments, {}, kForeign)) return false;
    ++counters_.packets;
    counters_.bytes += total_bytes(segments);
    return true;
}

Result<bool> TxQueue::transmit_segments(std::span<const Segment> segments) {
    if (auto ok = reap(); !ok) return tl::unexpected(ok.error());
    if (!add_segments(segments)) return false;
    queue_->kick();
    return true;
}

Result<void> TxQueue::reap() {
    reaped_.clear();
    while (const auto done = pop()) {
        ++counters_.done;
        if (done->token == kForeign) continue;
        const auto buffer = uint16_t(done->token);
        if (auto ok = pool_->take_back(buffer); !ok) return ok;
        reaped_.push_back(buffer);
    }
    if (auto ok = pool_->sync(); !ok) return ok;
    free_.insert(free_.end(), reaped_.begin(), reaped_.end());
    return check();
}

Result<void> TxQueue::drain(Milliseconds timeout) {
    Patience patience(timeout);
    do {
        if (auto ok = reap(); !ok) return ok;
        if (queue_->in_flight() == 0) return {};
    } while (patience.wait());
    return fail("{}: {} packets were not taken in {} ms", options_.name, queue_->in_flight(),
                timeout.count());
}

// ---- receive

Result<std::unique_ptr<RxQueue>> RxQueue::create(Memory& memory, Dma& dma,
                                                 const NetQueueOptions& options) {
    std::unique_ptr<RxQueue> q(new RxQueue(memory, dma, options));
    if (auto ok = q->make(Access::kWrite, q->segments_of(options.buffer_bytes)); !ok)
        return tl::unexpected(ok.error());
    for (uint16_t i = 0; i < q->buffers(); ++i) q->arrived_.push_back({i, 0});
    return q;
}

Result<void> RxQueue::post() {
    if (arrived_.empty()) return {};
    for (const auto& piece : arrived_) {
        const auto bus = pool_->lend(piece.buffer);
        if (!bus) return tl::unexpected(bus.error());
        segments_.clear();
        cut(*bus, options_.buffer_bytes);
        [[maybe_unused]] const bool added = queue_->add({}, segments_, piece.buffer);
        assert(added);  // there are no more buffers than fit
    }
    arrived_.clear();
    if (auto ok = pool_->sync(); !ok) return ok;
    queue_->kick();
    return {};
}

/// The rest of a packet whose first buffer is the last of arrived_.
bool RxQueue::is_whole(Arrival& arrival) {
    const Piece first = arrived_.back();
    std::memcpy(&arrival.header, pool_->data(first.buffer).data(), sizeof arrival.header);
    if (first.bytes < kHeaderBytes || first.bytes > options_.buffer_bytes) return false;
    if (!options_.mergeable) return true;
    const uint32_t pieces = arrival.header.num_buffers;
    // The device publishes the buffers of a packet together, so they are there or never will be.
    for (; arrival.pieces < pieces; ++arrival.pieces) {
        const auto next = pop();
        if (!next) return false;
        arrived_.push_back({uint16_t(next->token), next->bytes});
        if (next->bytes > options_.buffer_bytes) return false;
    }
    return pieces != 0;
}

/// Up to `max` packets into arrivals_, their buffers into arrived_, unmapped if that is due.
Result<void> RxQueue::collect(uint32_t max) {
    const size_t before = arrived_.size();
    arrivals_.clear();
    while (arrivals_.size() < max) {
        const auto done = pop();
        if (!done) break;
        Arrival arrival{uint32_t(arrived_.size()), 1, {}};
        arrived_.push_back({uint16_t(done->token), done->bytes});
        if (is_whole(arrival))
            arrivals_.push_back(arrival);
        else
            ++counters_.malformed;
    }
    for (size_t i = before; i < arrived_.size(); ++i)
        if (auto ok = pool_->take_back(arrived_[i].buffer); !ok) return ok;
    if (auto ok = pool_->sync(); !ok) return ok;
    return check();
}

std::span<const std::byte> RxQueue::packet_of(const Arrival& arrival) {
    const auto data = [&](uint32_t i) {
        const Piece& piece = arrived_[arrival.first + i];
        return pool_->data(piece.buffer).first(piece.bytes);
    };
    std::span<const std::byte> packet = data(0).subspan(kHeaderBytes);
    if (arrival.pieces > 1) {
        merged_.assign(packet.begin(), packet.end());
        for (uint32_t i = 1; i < arrival.pieces; ++i)
            merged_.insert(merged_.end(), data(i).begin(), data(i).end());
        packet = merged_;
    }
    ++counters_.packets;
    counters_.bytes += packet.size();
    return packet;
}

}  // namespace viommu::guest
