// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <span>

#include "offload.hh"
#include "offload_segmenter.hh"
#include "viommu_base.hh"

namespace viommu::app {

/// A transmit queue of an ethdev, and all that packets need before the device can take them:
/// checksums and cutting that it does not do itself, and one piece if it wants that.
///
/// Bound: of a burst as much as send() is given, and pieces of large packets until the device is
///        full; never a wait
/// Threads: one at a time; counters any
class EthdevSender {
  public:
    /// `offloads`: RTE_ETH_TX_OFFLOAD_* that are enabled. `pool`: for pieces of large packets.
    EthdevSender(uint16_t port, uint16_t queue, uint64_t offloads, rte_mempool& pool);

    /// As PacketEnd::send(). A packet that has been cut is taken, whatever becomes of its pieces.
    unsigned send(std::span<rte_mbuf*> in) noexcept;

    /// f(name, value)
    template <class F>
    void for_each(F&& f) const {
        f("segmented", adapter_.segmented.was());
        f("drop_offload", adapter_.drop_offload.was());
        f("drop_no_mbuf", adapter_.drop_no_mbuf.was());
        f("drop_rest", adapter_.drop_rest.was());
        f("drop_pieces", drop_pieces_.was());
        f("drop_too_big", drop_too_big_.was());
        f("drop_refused", drop_refused_.was());
    }

  private:
    bool simple(const rte_mbuf& packet) const noexcept {
        return net::offload::is_plain(packet) && (multi_segment_ || packet.nb_segs == 1);
    }
    bool transmit(std::span<rte_mbuf*> packets) noexcept;
    void linearise(std::span<rte_mbuf*>& packets) noexcept;

    const uint16_t port_, queue_;
    const bool multi_segment_;
    const net::offload::Receiver receiver_;
    net::offload::Adapter adapter_;
    Counter drop_pieces_;   ///< packets, or pieces of one, that were ready when the device was full
    Counter drop_too_big_;  ///< in several segments and too big for the one that the device takes
    Counter drop_refused_;  ///< by the driver, which looked at what it was to do
};

}  // namespace viommu::app
