// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "net_queue.hh"

struct rte_mbuf;
struct rte_mempool;

namespace viommu::net {

/// A transmitq (virtio 1.3, 5.1.6.2): what the guest sends becomes packets. What it leaves undone,
/// if it may (VIRTIO_NET_F_CSUM), is in the packets' flags (offload.hh).
///
/// Chains of one descriptor, which nearly all are, are handled many at once (doc/packet-path.md);
/// any other, and what goes wrong with one of these, one by one.
class TransmitQueue final : public NetQueue {
  public:
    /// `pool`: where packets are put. `max_frame`: bytes; larger ones are dropped, unless they are
    /// to be cut.
    TransmitQueue(xlate::Reader reader, rte_mempool& pool, uint32_t max_frame);

    /// Take packets, at most out.size() and kBurst; the caller owns them.
    unsigned receive(std::span<rte_mbuf*> out) noexcept;

    /// For tests: handle every chain by the way that can handle any.
    void set_plain_way(bool on) noexcept { plain_way_ = on; }

  private:
    /// Packets of a burst, and where the next goes.
    struct Taken {
        std::span<rte_mbuf*> out;
        unsigned packets = 0;
        uint64_t bytes = 0;
        void add(rte_mbuf* packet) noexcept;
    };

    template <class Q>
    void take_all(Q& queue, Taken& taken, unsigned most) noexcept;
    template <class Q>
    unsigned take_plain(Q& queue, Taken& taken, unsigned most, bool& no_mbuf) noexcept;
    bool take_any(Taken& taken) noexcept;
    struct Mbufs {
        unsigned frames, mbufs;  // of that many frames
    };
    Mbufs get_mbufs(rte_mbuf** fresh, std::span<const virtq::Plain> plain, uint32_t longest,
                    bool& no_mbuf) noexcept;
    unsigned mbufs_for(uint32_t bytes) const noexcept {  // of a frame that is one of max_plain_
        return bytes <= room_ ? 1 : (bytes + room_ - 1) / room_;
    }
    unsigned take_from_chain(Taken& taken, rte_mbuf*& fresh, std::span<rte_mbuf*> more) noexcept;
    bool read_frame(rte_mbuf* packet, std::span<rte_mbuf*> more, unsigned& used) noexcept;
    bool offloads() const noexcept { return acked(wire::VIRTIO_NET_F_CSUM); }
    bool leave_undone(const wire::virtio_net_hdr& header, rte_mbuf& packet) noexcept;

    rte_mempool& pool_;
    const uint32_t max_frame_;
    const uint32_t room_;  ///< bytes of a frame that fit into one mbuf
    const uint32_t max_plain_;  ///< bytes of the largest buffer that goes the plain way
    bool plain_way_ = true;
};

}  // namespace viommu::net
