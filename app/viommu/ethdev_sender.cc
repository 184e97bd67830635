// SPDX-License-Identifier: BSD-3-Clause
#include "ethdev_sender.hh"

#include <rte_ethdev.h>

#include <algorithm>

#include "patch.hh"

namespace viommu::app {

EthdevSender::EthdevSender(uint16_t port, uint16_t queue, uint64_t offloads, rte_mempool& pool)
    : port_(port),
      queue_(queue),
      multi_segment_((offloads & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0),
      receiver_(net::offload::Receiver::ethdev(offloads)),
      adapter_(pool) {}

unsigned EthdevSender::send(std::span<rte_mbuf*> in) noexcept {
    if (std::ranges::all_of(in, [this](const rte_mbuf* m) { return simple(*m); })) [[likely]]
        return rte_eth_tx_burst(port_, queue_, in.data(), uint16_t(in.size()));
    unsigned taken = 0;
    bool room = true;
    while (room && (taken < in.size() || adapter_.pending())) {
        rte_mbuf* out[Patch::kBurst];
        const auto moved = adapter_.run(in.subspan(taken), out, receiver_);
        taken += moved.taken;
        if (moved.taken == 0 && moved.made == 0) break;
        room = transmit(std::span(out).first(moved.made));
    }
    if (adapter_.pending()) adapter_.drop_pending();
    return taken;
}

/// To one segment each; those that do not fit into theirs are dropped.
void EthdevSender::linearise(std::span<rte_mbuf*>& packets) noexcept {
    size_t kept = 0;
    for (rte_mbuf* m : packets) {
        if (rte_pktmbuf_linearize(m) == 0) {
            packets[kept++] = m;
        } else {
            drop_too_big_.add();
            rte_pktmbuf_free(m);
        }
    }
    packets = packets.first(kept);
}

/// False: the device is full; what it did not take has been dropped.
bool EthdevSender::transmit(std::span<rte_mbuf*> packets) noexcept {
    if (!multi_segment_) linearise(packets);
    while (!packets.empty()) {
        const uint16_t ready =
            rte_eth_tx_prepare(port_, queue_, packets.data(), uint16_t(packets.size()));
        const uint16_t sent = rte_eth_tx_burst(port_, queue_, packets.data(), ready);
        if (sent < ready) {
            drop_pieces_.add(packets.size() - sent);
            rte_pktmbuf_free_bulk(packets.data() + sent, unsigned(packets.size() - sent));
            return false;
        }
        packets = packets.subspan(ready);
        if (packets.empty()) break;
        drop_refused_.add();
        rte_pktmbuf_free(packets[0]);
        packets = packets.subspan(1);
    }
    return true;
}

}  // namespace viommu::app
