// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <memory>

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

struct NetOptions {
    FrontendOptions frontend;
    uint16_t rx_queue_size = 256;
    uint16_t tx_queue_size = 256;
    uint16_t max_buffers = 0;      ///< of each queue; 0: as many as it has room for
    uint32_t buffer_bytes = 2048;  ///< including the virtio header
    BufferMaps buffer_maps = BufferMaps::kOneMapping;
    TxLayout tx_layout = TxLayout::kOneSegment;
    /// Accepted if offered. What they say about rings is for both queues.
    uint64_t features = bit(wire::VIRTIO_F_VERSION_1) | bit(wire::VIRTIO_F_ACCESS_PLATFORM) |
                        bit(wire::VIRTIO_NET_F_MAC) | bit(wire::VIRTIO_NET_F_MTU) |
                        bit(wire::VIRTIO_NET_F_STATUS) | bit(wire::VIRTIO_NET_F_MRG_RXBUF) |
                        bit(wire::VIRTIO_F_INDIRECT_DESC);
    uint64_t required = bit(wire::VIRTIO_F_VERSION_1);  ///< a device that lacks one is an error
};

/// A virtio-net driver with one pair of queues, polled. Whether its addresses are translated is its
/// Dma's secret.
///
/// Life: connect() when the VM is made, start() when the driver takes the device (which must be in
/// its domain by then), stop() when it lets it go, start() again.
///
/// Spec:    virtio 1.3, 5.1
/// Errors:  of the connection, of mapping, and of a queue that the device broke. Packets that are
///          not well-formed are counted.
/// Threads: one.
class NetDriver {
  public:
    static Result<std::unique_ptr<NetDriver>> connect(Memory& memory, const NetOptions& options);
    ~NetDriver();
    NetDriver(const NetDriver&) = delete;
    NetDriver& operator=(const NetDriver&) = delete;

    /// Negotiate, make rings and buffers, DRIVER_OK, post all receive buffers. `dma` must live
    /// until stop() has returned.
    Result<void> start(Dma& dma);
    /// Device reset; everything is unmapped and freed.
    Result<void> stop();
    /// The connection is made anew under running queues.
    Result<void> reconnect();
    /// The VM is paused, and goes on; the driver does not notice.
    Result<void> pause() { return frontend_.pause(); }
    Result<void> resume();

    /// Up to `count` packets: `fill(room)` writes one into a buffer and returns its length. Returns
    /// how many there were buffers for; they are the device's now.
    template <class Fill>
    Result<uint32_t> transmit(uint32_t count, Fill&& fill);
    /// One packet; false: no buffer is free.
    Result<bool> transmit(std::span<const std::byte> packet);
    /// Segments wherever they are, header included; nothing is copied or mapped. False: no room.
    Result<bool> transmit_segments(std::span<const Segment> segments);
    /// Take sent buffers back. transmit() does it too.
    Result<void> reap();
    /// Until the device has taken all that was sent. Errors: also when it has not in `timeout`.
    Result<void> drain(Milliseconds timeout);

    /// Up to `max` packets: `on_packet(bytes)`, without header, good during the call. Buffers are
    /// posted again before this returns, which is how many there were.
    template <class OnPacket>
    Result<uint32_t> receive(uint32_t max, OnPacket&& on_packet);
    /// One packet, waited for; nothing within `timeout` is an answer, not an error.
    Result<std::optional<std::vector<std::byte>>> receive(Milliseconds timeout);

    std::array<uint8_t, 6> mac() const;
    const wire::virtio_net_config& config() const { return config_; }
    uint64_t features() const { return acked_; }
    Frontend& frontend() { return frontend_; }
    DriverQueue& rx_queue() { return *rx_.queue; }
    DriverQueue& tx_queue() { return *tx_.queue; }
    int rx_call_fd() const { return rx_.call.get(); }
    int tx_call_fd() const { return tx_.call.get(); }
    uint16_t rx_buffers() const { return buffers_of(options_.rx_queue_size); }

    struct Counters {
        uint64_t tx_packets = 0, tx_bytes = 0;  ///< given to the device
        uint64_t tx_done = 0;                   ///< taken back
        uint64_t rx_packets = 0, rx_bytes = 0;
        uint64_t rx_malformed = 0;  ///< too short for a header, or pieces that are not there
    };
    const Counters& counters() const { return counters_; }

  private:
    static constexpr uint32_t kHeaderBytes = sizeof(wire::virtio_net_hdr);
    static constexpr uint64_t kForeign = UINT64_MAX;  // token of transmit_segments()

    struct Queue {
        uint16_t index;
        Fd kick{}, call{};
        DmaBlock ring{};
        std::optional<DriverQueue> queue{};
        std::optional<BufferPool> buffers{};
    };
    /// One packet that has arrived: `pieces` elements of arrived_ from `first` on.
    struct Arrival {
        uint32_t first, pieces;
    };
    struct Piece {
        uint16_t buffer;
        uint32_t bytes;
    };

    NetDriver(Memory& memory, const NetOptions& options) : memory_(memory), options_(options) {}
    Result<void> negotiate();
    Result<void> make_queue(Queue& q, uint16_t size, uint16_t buffers, Access access);
    Result<void> make_indirect_tables();
    QueueSetup setup_of(const Queue& q) const;
    Result<void> post(uint16_t buffer);
    Result<void> repost();
    std::span<std::byte> room_of(uint16_t buffer) const {
        return tx_.buffers->data(buffer).subspan(kHeaderBytes);
    }
    uint16_t descriptors_per_packet() const {
        return options_.tx_layout == TxLayout::kTwoSegments ? 2 : 1;
    }
    uint16_t buffers_of(uint16_t entries) const {
        return options_.max_buffers == 0 ? entries : std::min(entries, options_.max_buffers);
    }
    bool can_send() const {
        return !free_tx_.empty() && tx_.queue->free_descriptors() >= descriptors_per_packet();
    }
    Result<void> queue_packet(uint16_t buffer, uint32_t bytes);
    Result<void> send_queued();
    Result<void> collect(uint32_t max);
    std::span<const std::byte> packet_of(const Arrival& arrival);
    Result<void> check(const Queue& q) const;

    Memory& memory_;
    NetOptions options_;
    Frontend frontend_;
    Dma* dma_ = nullptr;  // null: stopped
    wire::virtio_net_config config_{};
    uint64_t acked_ = 0;
    Queue rx_{0}, tx_{1};
    DmaBlock tables_;
    std::vector<uint16_t> free_tx_;
    std::vector<uint16_t> reaped_;
    std::vector<Piece> arrived_;
    std::vector<Arrival> arrivals_;
    std::vector<std::byte> merged_;
    Counters counters_;
};

template <class Fill>
Result<uint32_t> NetDriver::transmit(uint32_t count, Fill&& fill) {
    if (auto ok = reap(); !ok) return tl::unexpected(ok.error());
    uint32_t sent = 0;
    for (; sent < count && can_send(); ++sent) {
        const uint16_t buffer = free_tx_.back();
        free_tx_.pop_back();
        const uint32_t bytes = fill(room_of(buffer));
        if (auto ok = queue_packet(buffer, bytes); !ok) return tl::unexpected(ok.error());
    }
    if (sent != 0)
        if (auto ok = send_queued(); !ok) return tl::unexpected(ok.error());
    return sent;
}

template <class OnPacket>
Result<uint32_t> NetDriver::receive(uint32_t max, OnPacket&& on_packet) {
    if (auto ok = collect(max); !ok) return tl::unexpected(ok.error());
    for (const auto& arrival : arrivals_) on_packet(packet_of(arrival));
    if (auto ok = repost(); !ok) return tl::unexpected(ok.error());
    return uint32_t(arrivals_.size());
}

}  // namespace viommu::guest
