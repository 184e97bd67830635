// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <memory>

#include "net_control.hh"
#include "net_queue.hh"

namespace viommu::guest {

struct NetOptions {
    FrontendOptions frontend;  ///< its `queues` is what the rest asks for
    uint16_t pairs = 1;        ///< of queues that the driver sets up and uses
    uint16_t rx_queue_size = 256;
    uint16_t tx_queue_size = 256;
    uint16_t max_buffers = 0;         ///< of each queue; 0: as many as it has room for
    uint32_t buffer_bytes = 2048;     ///< including the virtio header
    uint32_t tx_buffer_bytes = 0;     ///< of the transmitqs, if not the same
    uint32_t rx_segment_bytes = 0;    ///< a receive buffer is a chain of these; 0: one descriptor
    uint32_t tx_segment_bytes = 0;    ///< no descriptor of a packet is longer; 0: as long as may be
    BufferMaps buffer_maps = BufferMaps::kOneMapping;
    TxLayout tx_layout = TxLayout::kOneSegment;
    /// Accepted if offered. What they say about rings is for all queues.
    uint64_t features = bit(wire::VIRTIO_F_VERSION_1) | bit(wire::VIRTIO_F_ACCESS_PLATFORM) |
                        bit(wire::VIRTIO_NET_F_MAC) | bit(wire::VIRTIO_NET_F_MTU) |
                        bit(wire::VIRTIO_NET_F_STATUS) | bit(wire::VIRTIO_NET_F_MRG_RXBUF) |
                        bit(wire::VIRTIO_F_INDIRECT_DESC);
    uint64_t required = bit(wire::VIRTIO_F_VERSION_1);  ///< a device that lacks one is an error
};

/// A virtio-net driver, polled: pairs of queues, and a controlq where the device has one. Whether
/// its addresses are translated is its Dma's secret.
///
/// Life: connect() when the VM is made, start() when the driver takes the device (which must be in
/// its domain by then), stop() when it lets it go, start() again. Queues and their counters live
/// from start() to stop().
///
/// The controlq exists when VIRTIO_NET_F_CTRL_VQ was accepted. With VIRTIO_NET_F_MQ, start() also
/// tells the device to use all pairs.
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
    /// The connection is cut, at whatever the device is doing, and made anew under running queues.
    Result<void> reconnect();
    /// The VM is paused, and goes on; the driver does not notice.
    Result<void> pause() { return frontend_.pause(); }
    Result<void> resume();

    uint16_t pairs() const { return options_.pairs; }
    TxQueue& tx(uint16_t pair = 0) { return *tx_[pair]; }
    RxQueue& rx(uint16_t pair = 0) { return *rx_[pair]; }

    // Of pair 0; the words are TxQueue's and RxQueue's.
    template <class Fill>
    Result<uint32_t> transmit(uint32_t count, Fill&& fill) {
        return tx().transmit(count, fill);
    }
    /// One packet; false: no buffer is free.
    Result<bool> transmit(std::span<const std::byte> packet);
    Result<bool> transmit_segments(std::span<const Segment> segments) {
        return tx().transmit_segments(segments);
    }
    Result<void> reap() { return tx().reap(); }
    Result<void> drain(Milliseconds timeout) { return tx().drain(timeout); }
    template <class OnPacket>
    Result<uint32_t> receive(uint32_t max, OnPacket&& on_packet) {
        return rx().receive(max, on_packet);
    }
    /// One packet, waited for; nothing within `timeout` is an answer, not an error.
    Result<std::optional<std::vector<std::byte>>> receive(Milliseconds timeout);

    /// Null: there is none.
    NetControl* control() { return control_.get(); }
    /// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET. Errors: also when the device refuses.
    Result<void> use_pairs(uint16_t pairs);
    /// VIRTIO_NET_CTRL_MQ_RSS_CONFIG: what is in `table` are pairs; its length a power of two.
    struct Rss {
        uint32_t hash_types = 0;
        std::vector<uint16_t> table{0};
        uint16_t unclassified = 0;
        uint16_t max_tx_pairs = 1;
        std::vector<std::byte> key{};
    };
    Result<void> set_rss(const Rss& rss);

    /// Whether the device has said, since this was last asked, that its configuration changed; then
    /// config() is new. It can only say so to a VMM that gave it a backend channel.
    Result<bool> config_changed();
    Result<void> read_config();

    std::array<uint8_t, 6> mac() const;
    const wire::virtio_net_config& config() const { return config_; }
    uint64_t features() const { return acked_; }
    Frontend& frontend() { return frontend_; }
    DriverQueue& rx_queue() { return rx().queue(); }
    DriverQueue& tx_queue() { return tx().queue(); }
    int rx_call_fd() { return rx().call_fd(); }
    int tx_call_fd() { return tx().call_fd(); }
    uint16_t rx_buffers() { return rx().buffers(); }

    /// Of all queues.
    struct Counters {
        uint64_t tx_packets = 0, tx_bytes = 0;  ///< given to the device
        uint64_t tx_done = 0;                   ///< taken back
        uint64_t rx_packets = 0, rx_bytes = 0;
        uint64_t rx_malformed = 0;  ///< too short for a header, or pieces that are not there
    };
    Counters counters() const;

  private:
    NetDriver(Memory& memory, const NetOptions& options) : memory_(memory), options_(options) {}
    Result<void> negotiate();
    Result<void> make_queues(Dma& dma);
    NetQueueOptions queue_options(uint16_t index) const;
    template <class Queue>
    Result<void> add_queue(std::vector<std::unique_ptr<Queue>>& queues, uint16_t index);
    /// Every queue in the order of its index; `f` returns nothing.
    template <class F>
    void for_each_queue(F&& f);
    Result<void> ask(uint8_t class_, uint8_t command, std::span<const std::byte> data);
    bool acked(unsigned feature) const { return (acked_ & bit(feature)) != 0; }

    Memory& memory_;
    NetOptions options_;
    Frontend frontend_;
    Dma* dma_ = nullptr;  // null: stopped
    wire::virtio_net_config config_{};
    uint64_t acked_ = 0;
    std::vector<std::unique_ptr<RxQueue>> rx_;
    std::vector<std::unique_ptr<TxQueue>> tx_;
    std::unique_ptr<NetControl> control_;
};

}  // namespace viommu::guest
