// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "net_queue.hh"

struct rte_mbuf;

namespace viommu::net {

/// A receiveq (virtio 1.3, 5.1.6.3, 5.1.6.4): packets into the guest's buffers.
class ReceiveQueue final : public NetQueue {
  public:
    /// `max_frame`: bytes; larger packets are dropped.
    ReceiveQueue(xlate::Reader reader, uint32_t max_frame)
        : NetQueue(std::move(reader)), max_frame_(max_frame) {}

    /// Give packets to the guest, from the front, at most kBurst. Returns how many were taken
    /// (delivered or dropped, and freed); the rest stay the caller's.
    unsigned send(std::span<rte_mbuf*> in) noexcept;

  private:
    enum class Delivery { kDone, kNoBuffer };
    Delivery write_frame(const rte_mbuf* packet) noexcept;

    const uint32_t max_frame_;
};

}  // namespace viommu::net
