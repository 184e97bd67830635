// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <concepts>
#include <deque>

#include "buffer_pool.hh"
#include "driver_queue.hh"
#include "frontend.hh"

namespace viommu::guest {

/// How a packet to send is described.
enum class TxLayout {
    kOneSegment,   ///< virtio header and packet in one buffer
    kTwoSegments,  ///< a descriptor for each
    kIndirect,     ///< the same two, in an indirect table; INDIRECT_DESC must be negotiated
};

struct NetQueueOptions {
    std::string name;  ///< for messages
    uint16_t index = 0;
    uint16_t size = 256;
    uint16_t max_buffers = 0;    ///< 0: as many as there is room for
    uint32_t buffer_bytes = 0;   ///< including the virtio header
    uint32_t segment_bytes = 0;  ///< no descriptor is of more; 0: as long as may be
    BufferMaps maps = BufferMaps::kOneMapping;
    TxLayout layout = TxLayout::kOneSegment;
    RingFormat format;
    bool mergeable = false;  ///< VIRTIO_NET_F_MRG_RXBUF was negotiated
};

/// A ring, what is signalled through, and packet buffers: what the two directions of a pair have
/// in common.
///
/// Life: make(), which its constructor's owner calls once; release() after the device's reset.
/// Errors: of mapping, and of a queue that the device broke.
/// Threads: one.
class NetQueue {
  public:
    NetQueue(const NetQueue&) = delete;
    NetQueue& operator=(const NetQueue&) = delete;

    /// Unmap and free everything; the device has been reset.
    Result<void> release();
    uint16_t index() const { return options_.index; }
    uint16_t buffers() const { return pool_->count(); }
    uint32_t buffer_bytes() const { return options_.buffer_bytes; }
    /// Where the device sees a buffer, or last saw it.
    BusAddress bus_of(uint16_t buffer) const { return pool_->bus(buffer); }
    DriverQueue& queue() { return *queue_; }
    int call_fd() const { return call_.get(); }
    int kick_fd() const { return kick_.get(); }
    /// Whatever the ring says, the device is signalled.
    void signal() const;

    QueueSetup setup() const;
    /// For a connection that is made anew, when the old one is not served any more: all that the
    /// device has returned is put aside for later, so that the ring's base is known.
    QueueSetup setup_again();

  protected:
    static constexpr uint32_t kHeaderBytes = sizeof(wire::virtio_net_hdr);

    NetQueue(Memory& memory, Dma& dma, NetQueueOptions options)
        : memory_(memory), dma_(dma), options_(std::move(options)) {}
    Result<void> make(Access access, uint16_t descriptors_per_packet);
    std::optional<Completion> pop();
    Result<void> check() const;
    /// [at, at + bytes) as segments_, added to those that are there.
    void cut(BusAddress at, uint32_t bytes);
    uint16_t segments_of(uint32_t bytes) const {
        const uint32_t most = options_.segment_bytes;
        return uint16_t(most == 0 ? 1 : (bytes + most - 1) / most);
    }

    Memory& memory_;
    Dma& dma_;
    const NetQueueOptions options_;
    std::optional<BufferPool> pool_;
    std::optional<DriverQueue> queue_;
    std::vector<Segment> segments_;

  private:
    Fd kick_, call_;
    DmaBlock ring_;
    std::deque<Completion> aside_;  ///< returned by the device, not yet by pop()
};

/// The driver's end of a transmitq.
class TxQueue final : public NetQueue {
  public:
    static Result<std::unique_ptr<TxQueue>> create(Memory& memory, Dma& dma,
                                                   const NetQueueOptions& options);
    Result<void> release();

    /// Up to `count` packets: `fill(room)` writes one into a buffer and returns its length, or
    /// `fill(header, room)` its virtio header too, which is zero before. Returns how many there
    /// were buffers for; they are the device's now.
    template <class Fill>
    Result<uint32_t> transmit(uint32_t count, Fill&& fill);
    /// Segments wherever they are, header included; nothing is copied or mapped. False: no room.
    Result<bool> transmit_segments(std::span<const Segment> segments);
    /// The same, but the device sees it only after the next transmit() or queue().kick().
    bool add_segments(std::span<const Segment> segments);
    /// Take sent buffers back. transmit() does it too.
    Result<void> reap();
    /// Until the device has taken all that was sent. Errors: also when it has not in `timeout`.
    Result<void> drain(Milliseconds timeout);

    struct Counters {
        uint64_t packets = 0, bytes = 0;  ///< given to the device
        uint64_t done = 0;                ///< taken back
    };
    const Counters& counters() const { return counters_; }

  private:
    static constexpr uint64_t kForeign = UINT64_MAX;  // token of transmit_segments()

    using NetQueue::NetQueue;
    uint16_t table_entries() const { return uint16_t(1 + segments_of(options_.buffer_bytes)); }
    uint16_t descriptors_per_packet() const {
        return options_.layout == TxLayout::kIndirect     ? 1
               : options_.layout == TxLayout::kTwoSegments ? table_entries()
                                                           : segments_of(options_.buffer_bytes);
    }
    bool can_send() const {
        return !free_.empty() && queue_->free_descriptors() >= descriptors_per_packet();
    }
    Result<void> put(uint16_t buffer, const wire::virtio_net_hdr& header, uint32_t bytes);
    Result<void> publish();

    DmaBlock tables_;
    std::vector<uint16_t> free_, reaped_;
    Counters counters_;
};

/// The driver's end of a receiveq. All of its buffers are the device's, or about to be.
class RxQueue final : public NetQueue {
  public:
    static Result<std::unique_ptr<RxQueue>> create(Memory& memory, Dma& dma,
                                                   const NetQueueOptions& options);

    /// Give the device all buffers that it does not have.
    Result<void> post();
    /// Up to `max` packets: `on_packet(bytes)`, or `on_packet(header, bytes)`; good in the call.
    /// Buffers are posted again before this returns, which is how many packets there were.
    template <class OnPacket>
    Result<uint32_t> receive(uint32_t max, OnPacket&& on_packet);
    /// The same, but the buffers are kept until post(): a guest that is too slow.
    template <class OnPacket>
    Result<uint32_t> receive_and_keep(uint32_t max, OnPacket&& on_packet);

    struct Counters {
        uint64_t packets = 0, bytes = 0;
        uint64_t malformed = 0;  ///< too short for a header, or pieces that are not there
    };
    const Counters& counters() const { return counters_; }

  private:
    /// One packet that has arrived: `pieces` elements of arrived_ from `first` on.
    struct Arrival {
        uint32_t first, pieces;
        wire::virtio_net_hdr header;
    };
    struct Piece {
        uint16_t buffer;
        uint32_t bytes;
    };

    using NetQueue::NetQueue;
    Result<void> collect(uint32_t max);
    bool is_whole(Arrival& arrival);
    std::span<const std::byte> packet_of(const Arrival& arrival);

    std::vector<Piece> arrived_;  // to be posted again
    std::vector<Arrival> arrivals_;
    std::vector<std::byte> merged_;
    Counters counters_;
};

template <class Fill>
Result<uint32_t> TxQueue::transmit(uint32_t count, Fill&& fill) {
    if (auto ok = reap(); !ok) return tl::unexpected(ok.error());
    uint32_t sent = 0;
    for (; sent < count && can_send(); ++sent) {
        const uint16_t buffer = free_.back();
        free_.pop_back();
        const auto room = pool_->data(buffer).subspan(kHeaderBytes);
        wire::virtio_net_hdr header{};
        uint32_t bytes;
        if constexpr (std::invocable<Fill&, wire::virtio_net_hdr&, std::span<std::byte>>)
            bytes = fill(header, room);
        else
            bytes = fill(room);
        if (auto ok = put(buffer, header, bytes); !ok) return tl::unexpected(ok.error());
    }
    if (sent != 0)
        if (auto ok = publish(); !ok) return tl::unexpected(ok.error());
    return sent;
}

template <class OnPacket>
Result<uint32_t> RxQueue::receive_and_keep(uint32_t max, OnPacket&& on_packet) {
    if (auto ok = collect(max); !ok) return tl::unexpected(ok.error());
    for (const auto& arrival : arrivals_) {
        const auto packet = packet_of(arrival);
        if constexpr (std::invocable<OnPacket&, const wire::virtio_net_hdr&,
                                     std::span<const std::byte>>)
            on_packet(arrival.header, packet);
        else
            on_packet(packet);
    }
    return uint32_t(arrivals_.size());
}

template <class OnPacket>
Result<uint32_t> RxQueue::receive(uint32_t max, OnPacket&& on_packet) {
    auto received = receive_and_keep(max, on_packet);
    if (!received) return received;
    if (auto ok = post(); !ok) return tl::unexpected(ok.error());
    return received;
}

}  // namespace viommu::guest
