// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "net_queue.hh"

struct rte_mbuf;

namespace viommu::net {

/// A receiveq (virtio 1.3, 5.1.6.3, 5.1.6.4): packets into the guest's buffers.
///
/// Packets that fit into one buffer of one descriptor, which nearly all do, are handled many at
/// once (doc/packet-path.md); any other, and what goes wrong with one of these, one by one.
class ReceiveQueue final : public NetQueue {
  public:
    /// `max_frame`: bytes; larger packets are dropped.
    ReceiveQueue(xlate::Reader reader, uint32_t max_frame)
        : NetQueue(std::move(reader)), max_frame_(max_frame) {}

    /// Give packets to the guest, from the front, at most kBurst. Returns how many were taken
    /// (delivered or dropped, and freed); the rest stay the caller's.
    unsigned send(std::span<rte_mbuf*> in) noexcept;

    /// For tests: handle every packet by the way that can handle any.
    void set_plain_way(bool on) noexcept { plain_way_ = on; }

  private:
    enum class Delivery { kDone, kNoBuffer };
    template <class Q>
    unsigned give_plain(Q& queue, std::span<rte_mbuf*> in) noexcept;
    Delivery write_frame(const rte_mbuf* packet) noexcept;

    const uint32_t max_frame_;
    uint32_t buffer_bytes_ = ~0u;  // of the last buffer seen: what the next will hold, probably
    uint64_t packets_ = 0, bytes_ = 0;  // delivered in this burst
    bool plain_way_ = true;
};

}  // namespace viommu::net
