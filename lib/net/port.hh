// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "counters.hh"
#include "iova_space.hh"
#include "viommu_wire.hh"

struct rte_mbuf;
struct rte_mempool;

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
    RingAddresses ring_addresses = RingAddresses::kAuto;
};

/// A NIC of a guest. Control methods have the shape of vhost::Handler's, whose adapter forwards
/// them; packets go in and out as bursts.
///
/// A ring whose pages do not translate is *stalled*: nothing of it is touched, and each poll asks
/// again. It goes on where it stopped as soon as it translates. Ring pages are translated once and
/// again whenever the table's generation has moved.
///
/// Where a split ring starts is read from its used index, which is right because everything taken
/// is returned in order within the same burst, and needs no trust in a VMM that read the base from
/// the wrong page (aperture mode). A packed ring has no such index; there a VMM has nothing to read
/// either and keeps what it was told, so the ring starts at its base.
///
/// Of one ring virtq::kBurstDescriptors are read per burst, and a chain, and no more: chains may be
/// as long as the queue, and an UNMAP waits for the burst.
///
/// Threads: control methods while no packet method runs; packet methods on one lcore.
class NetPort {
  public:
    static constexpr uint16_t kReceiveq = 0;   ///< to the guest
    static constexpr uint16_t kTransmitq = 1;  ///< from the guest
    static constexpr unsigned kBurst = 32;

    /// `pool`: where packets from the guest are put.
    /// Errors: the endpoint is not behind the table's IOMMU; no reader slot is left.
    static Result<std::unique_ptr<NetPort>> create(const Config& config, table::Table& table,
                                                   xlate::FaultQueue& faults, rte_mempool& pool);
    NetPort(const NetPort&) = delete;
    NetPort& operator=(const NetPort&) = delete;

    // --- control ---------------------------------------------------------------------------------

    uint64_t features() const noexcept;
    static constexpr uint16_t num_queues() noexcept { return 2; }
    void features_acked(uint64_t features) noexcept { acked_ = features; }
    /// 5.1.4; bytes beyond the structure read as zero. There is nothing to write.
    void config_read(uint32_t offset, std::span<std::byte> out) const noexcept;
    void memory_changed(std::shared_ptr<const virtq::MemoryMap> memory);
    /// Null: nobody wants to know which pages are written.
    void log_changed(std::shared_ptr<const virtq::DirtyLog> log);
    void queue_started(const virtq::Vring& vring);
    /// Returns what GET_VRING_BASE answers; the frontend's own base when the ring could never be
    /// read.
    uint32_t queue_stopped(uint16_t index) noexcept;

    // --- packets ---------------------------------------------------------------------------------

    /// Take packets that the guest sends, at most out.size() and kBurst; the caller owns them.
    unsigned from_guest(std::span<rte_mbuf*> out) noexcept;
    /// Give packets to the guest, from the front, at most kBurst. Returns how many were taken
    /// (delivered or dropped, and freed); the rest stay the caller's.
    unsigned to_guest(std::span<rte_mbuf*> in) noexcept;

    // --- sleeping (poll::Pollable's terms) -------------------------------------------------------

    /// Ask the guest to kick for packets it sends. False when there are some.
    bool arm() noexcept;
    void disarm() noexcept;
    /// Kick fds of running queues; constant between control calls.
    std::span<const int> wake_fds() const noexcept { return wake_fds_; }
    /// A stalled ring can ask for no kick, so the transmitq must be polled now and then. (The
    /// receiveq is looked at when there is a packet for it.)
    std::chrono::microseconds sleep_limit() const noexcept;

    const Counters& from_guest_counters() const noexcept { return transmit_.counters; }
    const Counters& to_guest_counters() const noexcept { return receive_.counters; }
    /// Of ring pages and buffers. Threads: any.
    uint64_t translations() const noexcept { return translations_.was(); }
    /// Faults that found the queue to the writer full. Threads: any.
    uint64_t lost_faults() const noexcept { return reader_.lost_faults(); }

  private:
    using Ring = virtq::Queue<IovaSpace>;

    struct Queue {
        std::optional<virtq::Vring> vring;  ///< running; addresses are IOVAs
        Ring ring;
        uint64_t generation = 0;  ///< of the table when the ring was bound
        uint32_t base = 0;        ///< what the frontend said; all we know until `started`
        bool started = false;     ///< the index has been taken from the used ring
        bool stalled = false;
        uint64_t broken_seen = 0;
        Counters counters;
    };
    /// One reader section with the ring ready in it.
    class Burst;

    NetPort(const Config& config, xlate::Reader reader, rte_mempool& pool);

    Queue* queue(uint16_t index) noexcept {
        return index == kReceiveq ? &receive_ : index == kTransmitq ? &transmit_ : nullptr;
    }
    std::optional<virtq::Vring> in_iovas(const virtq::Vring& vring) const noexcept;
    bool ready(Queue& queue) noexcept;
    void count_broken(Queue& queue) noexcept;
    void collect_wake_fds();
    uint32_t max_frame() const noexcept;

    enum class Delivery { kDone, kNoBuffer };
    bool read_frame(rte_mbuf* packet) noexcept;
    /// Take the next chain into chain_; kEmpty also when the burst has read enough.
    virtq::Pop take_chain(Queue& queue) noexcept;
    Delivery write_frame(const rte_mbuf* packet) noexcept;

    const Config config_;
    xlate::Reader reader_;
    IovaSpace space_{reader_};
    rte_mempool& pool_;
    std::shared_ptr<const virtq::MemoryMap> memory_;
    std::shared_ptr<const virtq::DirtyLog> log_;
    uint64_t acked_ = 0;  ///< the rings' format is decided by it
    Queue receive_;
    Queue transmit_;
    std::vector<int> wake_fds_;
    Counter translations_;
    virtq::Chain chain_;
    uint32_t descriptors_ = 0;  // read in this burst
};

}  // namespace viommu::net
