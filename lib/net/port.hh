// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "control_queue.hh"
#include "net_config.hh"
#include "receive_queue.hh"
#include "transmit_queue.hh"
#include "viommu_wire.hh"

namespace viommu::net {

/// What SET_VRING_ADDR carries for a port (doc/architecture.md, "Ring addresses").
enum class RingAddresses {
    kAuto,  ///< kIova when VIRTIO_F_ACCESS_PLATFORM is in SET_FEATURES, else kUva
    kIova,  ///< the VMM knows about the IOMMU
    kUva,   ///< the VMM takes IOVAs for GPAs and sends UVA(IOVA)
};

struct Config {
    EndpointId endpoint = 0;
    std::array<uint8_t, 6> mac{};
    std::optional<uint16_t> mtu{};  ///< offered to the guest, and enforced
    uint16_t queue_pairs = 1;       ///< max_virtqueue_pairs, 1 to NetPort::kMaxPairs
    /// All queues of the device come to us (a generic vhost-user device): the control queue, and
    /// with it MQ and RSS, can be offered. Never where the VMM keeps that queue: it would take our
    /// IOVAs for GPAs.
    bool control_queue = false;
    bool offloads = true;  ///< checksum, TSO, USO are offered: towards the guest and from it
    MayLeave may_leave = MayLeave::kCutting;  ///< where offloads are offered: from it
    std::optional<uint32_t> speed_mbps{};   ///< VIRTIO_NET_F_SPEED_DUPLEX
    RingAddresses ring_addresses = RingAddresses::kAuto;
};

/// A NIC of a guest. Control methods have the shape of vhost::Handler's, whose adapter forwards
/// them; packets go in and out as bursts, per queue pair.
///
/// Pairs share nothing that packets write: each direction of each has a reader of its own, and may
/// be used by an lcore of its own.
///
/// Threads: control methods while no packet or sleeping method runs; of each pair, each direction
///          is used by one lcore at a time.
class NetPort {
  public:
    static constexpr unsigned kBurst = NetQueue::kBurst;
    static constexpr uint16_t kMaxPairs = 64;

    /// Spec: 5.1.2 Virtqueues
    static constexpr uint16_t receiveq(uint16_t pair) { return uint16_t(2 * pair); }
    static constexpr uint16_t transmitq(uint16_t pair) { return uint16_t(2 * pair + 1); }

    /// Makes a Reader of the port's endpoint; called for each queue.
    using MakeReader = std::function<Result<xlate::Reader>()>;

    /// `pool`: where packets from the guest are put, and pieces of large ones that it does not take.
    /// Errors: the configuration; whatever `make_reader` says.
    static Result<std::unique_ptr<NetPort>> create(const Config& config,
                                                   const MakeReader& make_reader,
                                                   rte_mempool& pool);
    /// In the table's own process.
    /// Errors: also: the endpoint is not behind the table's IOMMU; no reader slot is left (two are
    ///         needed per pair, and one for the control queue).
    static Result<std::unique_ptr<NetPort>> create(const Config& config, table::Table& table,
                                                   xlate::FaultQueue& faults, rte_mempool& pool);
    NetPort(const NetPort&) = delete;
    NetPort& operator=(const NetPort&) = delete;

    // --- control ---------------------------------------------------------------------------------

    uint64_t features() const noexcept;
    uint16_t num_queues() const noexcept {
        return uint16_t(2 * config_.queue_pairs + config_.control_queue);
    }
    /// Other features than before end all that the guest has set by commands.
    void features_acked(uint64_t features) noexcept;
    /// 5.1.4; bytes beyond the structure read as zero. There is nothing to write.
    void config_read(uint32_t offset, std::span<std::byte> out) const noexcept;
    void memory_changed(std::shared_ptr<const virtq::MemoryMap> memory);
    /// Null: nobody wants to know which pages are written.
    void log_changed(std::shared_ptr<const virtq::DirtyLog> log);
    void queue_started(const virtq::Vring& vring);
    /// Returns what GET_VRING_BASE answers; the frontend's own base when the ring could never be
    /// read.
    uint32_t queue_stopped(uint16_t index) noexcept;
    /// Translate by other readers from here on, one for each queue, because the table is another.
    /// Rings are looked for in it anew; packets and counters go on.
    /// Errors: make_reader's; nothing has changed then.
    Result<void> use_readers(const MakeReader& make_reader);
    /// Whether there is a carrier (VIRTIO_NET_F_STATUS; up at first). True when the configuration
    /// space has changed by it, which the frontend is to be told.
    /// Threads: control, or any one other
    bool set_link(bool up) noexcept;

    uint16_t max_pairs() const noexcept { return config_.queue_pairs; }
    /// Pairs that the guest uses, at least 1: as it says by the control queue, else those from the
    /// first on whose queues run.
    /// Threads: any
    uint16_t active_pairs() const noexcept { return control_.steering().pairs(); }
    /// What the guest has set by RSS_CONFIG, for a program that can set a NIC to it, queue n for
    /// pair n; nothing: it has not. Its `version` changes with it. Threads: any
    std::optional<Rss> rss() const noexcept { return control_.steering().snapshot(); }
    uint64_t rss_version() const noexcept { return control_.steering().version(); }

    // --- packets ---------------------------------------------------------------------------------

    /// Take packets that the guest sends, at most out.size() and kBurst; the caller owns them.
    unsigned from_guest(uint16_t pair, std::span<rte_mbuf*> out) noexcept {
        return pairs_[pair]->transmit.receive(out);
    }
    /// Give packets to the guest, from the front, at most kBurst. Returns how many were taken
    /// (delivered or dropped, and freed); the rest stay the caller's.
    unsigned to_guest(uint16_t pair, std::span<rte_mbuf*> in) noexcept {
        return pairs_[pair]->receive.send(in);
    }
    /// The pair whose receiveq a packet should go to, when it came by queue `from` of the other
    /// end. Threads: any
    uint16_t pair_for(const rte_mbuf& packet, uint16_t from) const noexcept {
        return control_.steering().pair_for(packet, from);
    }
    /// Do what the guest asks for by the control queue. Cost when there is nothing: a load without
    /// such a queue, an empty burst with one.
    /// Threads: who uses pair 0
    void poll_control() noexcept {
        if (control_queue_) control_queue_->poll();
    }

    // --- sleeping (poll::Pollable's terms) -------------------------------------------------------

    /// Ask the guest to kick for packets it sends, of pair 0 also for commands. False when there
    /// are some. Buffers that it adds to the receiveq wake nobody: they are looked for when there
    /// is a packet for them.
    bool arm(uint16_t pair) noexcept;
    void disarm(uint16_t pair) noexcept;
    /// Kick fds of a pair's running queues; constant between control calls.
    std::span<const int> wake_fds(uint16_t pair) const noexcept { return pairs_[pair]->wake_fds; }
    /// Finite while the transmitq, or of pair 0 the controlq, is stalled. (The receiveq is looked
    /// at when there is a packet for it.)
    std::chrono::microseconds sleep_limit(uint16_t pair) const noexcept;

    // --- counters; threads: any ------------------------------------------------------------------

    const Counters& from_guest_counters(uint16_t pair) const noexcept {
        return pairs_[pair]->transmit.counters();
    }
    const Counters& to_guest_counters(uint16_t pair) const noexcept {
        return pairs_[pair]->receive.counters();
    }
    /// Packets are commands. Null: there is no control queue.
    const Counters* control_counters() const noexcept {
        return control_queue_ ? &control_queue_->counters() : nullptr;
    }
    /// Of ring pages and buffers, of all queues.
    uint64_t translations() const noexcept;
    /// Faults that found the queue to the writer full.
    uint64_t lost_faults() const noexcept;

    /// For tests: without it every chain goes the way that can handle any (doc/packet-path.md).
    void set_plain_way(bool on) noexcept;

  private:
    struct Pair {
        ReceiveQueue receive;
        TransmitQueue transmit;
        std::vector<int> wake_fds{};
    };

    explicit NetPort(const Config& config)
        : config_(config), control_({config.mac, config.queue_pairs}) {}

    bool is_control(uint16_t index) const noexcept;
    NetQueue* queue(uint16_t index) noexcept;
    template <class F>
    void for_each_queue(F&& f) const {
        for (const auto& pair : pairs_) {
            f(pair->receive);
            f(pair->transmit);
        }
        if (control_queue_) f(*control_queue_);
    }
    unsigned readers() const noexcept {
        return unsigned(2 * pairs_.size()) + (control_queue_ != nullptr);
    }
    std::optional<virtq::Vring> in_iovas(const virtq::Vring& vring) const noexcept;
    /// After a queue was started or stopped.
    void queues_changed();

    const Config config_;
    std::shared_ptr<const virtq::MemoryMap> memory_;
    std::shared_ptr<const virtq::DirtyLog> log_;
    uint64_t acked_ = 0;  ///< what of it may be relied on
    Control control_;
    std::vector<std::unique_ptr<Pair>> pairs_;
    std::unique_ptr<ControlQueue> control_queue_;
    std::atomic<bool> link_up_{true};
};

}  // namespace viommu::net
