// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "burst_count.hh"
#include "control.hh"
#include "net_queue.hh"
#include "offload_segmenter.hh"

struct rte_mempool;

namespace viommu::net {

/// A receiveq (virtio 1.3, 5.1.6.3, 5.1.6.4): packets into the guest's buffers. What a packet still
/// needs (offload.hh) is left to the guest as far as it has said so, and done here else; what its
/// filter does not accept is dropped.
///
/// Packets that fit into one buffer of one descriptor, which nearly all do, are handled many at
/// once (doc/packet-path.md); any other, and what goes wrong with one of these, one by one.
class ReceiveQueue final : public NetQueue {
  public:
    /// Pieces that packets of one burst are cut into: an UNMAP waits for it. As many as of two
    /// packets that are cut as far as any may be.
    static constexpr uint32_t kMaxPieces = 2 * offload::Segmenter::kMaxSegments;

    /// `control`: what the guest has set. `max_frame`: bytes; larger packets are dropped, unless
    /// the guest takes them to be cut. `pool`: for pieces of large packets.
    ReceiveQueue(xlate::Reader reader, const Control& control, uint16_t pair, rte_mempool& pool,
                 uint32_t max_frame)
        : NetQueue(std::move(reader)),
          control_(control),
          pool_(pool),
          pair_(pair),
          max_frame_(max_frame) {}

    /// In them control's settings are looked at, and nowhere else. Threads: any
    const BurstCount& bursts() const noexcept { return bursts_; }

    /// Give packets to the guest, from the front, at most kBurst. Returns how many were taken
    /// (delivered or dropped, and freed); the rest stay the caller's.
    unsigned send(std::span<rte_mbuf*> in) noexcept;

    /// For tests: handle every packet by the way that can handle any.
    void set_plain_way(bool on) noexcept { plain_way_ = on; }

  private:
    enum class Delivery {
        kDone,      ///< or dropped, and counted
        kNoBuffer,  ///< the packet has not been touched
        kEnough,    ///< the same: the burst has done what it may
    };
    unsigned ready(std::span<rte_mbuf*> in) noexcept;
    unsigned deliver(std::span<rte_mbuf*> in) noexcept;
    Delivery deliver_other(rte_mbuf& packet) noexcept;
    Delivery cut(rte_mbuf& packet) noexcept;
    template <class Q>
    unsigned give_plain(Q& queue, std::span<rte_mbuf*> in) noexcept;
    Delivery write_frame(const rte_mbuf* packet) noexcept;

    bool too_big(const rte_mbuf& packet) const noexcept {
        return packet.pkt_len > max_frame_ &&
               (!offload::is_large(packet) || packet.pkt_len > offload::kMaxBytes);
    }

    const Control& control_;
    rte_mempool& pool_;
    const uint16_t pair_;
    const uint32_t max_frame_;
    BurstCount bursts_;
    uint64_t features_ = 0;         // of this burst: offloads that are on
    offload::Receiver receiver_;    // the same
    uint32_t pieces_ = 0;           // cut in this burst
    uint32_t buffer_bytes_ = ~0u;  // of the last buffer seen: what the next will hold, probably
    uint64_t packets_ = 0, bytes_ = 0;  // delivered in this burst
    bool plain_way_ = true;
};

}  // namespace viommu::net
