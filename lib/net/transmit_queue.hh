// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "net_queue.hh"

struct rte_mbuf;
struct rte_mempool;

namespace viommu::net {

/// A transmitq (virtio 1.3, 5.1.6.2): what the guest sends becomes packets.
class TransmitQueue final : public NetQueue {
  public:
    /// `pool`: where packets are put. `max_frame`: bytes; larger ones are dropped.
    TransmitQueue(xlate::Reader reader, rte_mempool& pool, uint32_t max_frame)
        : NetQueue(std::move(reader)), pool_(pool), max_frame_(max_frame) {}

    /// Take packets, at most out.size() and kBurst; the caller owns them.
    unsigned receive(std::span<rte_mbuf*> out) noexcept;

  private:
    bool read_frame(rte_mbuf* packet) noexcept;

    rte_mempool& pool_;
    const uint32_t max_frame_;
};

}  // namespace viommu::net
