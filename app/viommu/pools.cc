// SPDX-License-Identifier: BSD-3-Clause
#include "pools.hh"

#include <rte_errno.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <set>

#include "ethdev.hh"
#include "patch.hh"

namespace viommu::app {
namespace {

constexpr unsigned kMbufCache = 256;
/// A cache gives back when it is half as full again.
constexpr unsigned kInCache = kMbufCache + kMbufCache / 2;
/// A burst of packets of 64 KiB in pieces of 2 KiB.
constexpr unsigned kLargeBurst = Patch::kBurst * 33;

int node_of(const Net& net) {
    if (rte_socket_count() <= 1) return SOCKET_ID_ANY;
    return int(rte_lcore_to_socket_id(net.lcore_of(0)));
}

/// Of the largest packet of a configured MTU, in one piece.
uint16_t data_room(const Config& config) {
    uint32_t largest = RTE_MBUF_DEFAULT_DATAROOM;
    for (const Guest& guest : config.guests)
        for (const Net& net : guest.nets)
            largest = std::max<uint32_t>(largest, net.mtu.value_or(0) + RTE_ETHER_HDR_LEN +
                                                      2 * RTE_VLAN_HLEN + RTE_ETHER_CRC_LEN);
    return uint16_t(RTE_PKTMBUF_HEADROOM + RTE_ALIGN(largest, RTE_CACHE_LINE_SIZE));
}

}  // namespace

unsigned mbufs_needed(const Config& config, int node) {
    unsigned mbufs = 0;
    std::set<unsigned> lcores;
    for (const Guest& guest : config.guests)
        for (const Net& net : guest.nets) {
            if (node != SOCKET_ID_ANY && node_of(net) != node) continue;
            const bool ethdev =
                net.peer.kind == Peer::Kind::kVdev || net.peer.kind == Peer::Kind::kEthdev;
            // What is on its way or kept each way, and both rings of the device's queue.
            const unsigned in_rings = ethdev ? 2u * Ethdev::kDescriptors : 0;
            mbufs += net.queue_pairs * (4 * Patch::kBurst + in_rings);
            mbufs += kLargeBurst;
            for (const Lcore& lcore : net.lcores) lcores.insert(lcore.id);
        }
    if (mbufs == 0) return 0;
    return mbufs + unsigned(lcores.size()) * (kInCache + kLargeBurst);
}

void Pools::Freer::operator()(rte_mempool* pool) const { rte_mempool_free(pool); }

Result<Pools> Pools::create(const Config& config) {
    Pools pools;
    std::set<int> nodes;
    for (const Guest& guest : config.guests)
        for (const Net& net : guest.nets) nodes.insert(node_of(net));
    for (const int node : nodes) {
        const unsigned mbufs = mbufs_needed(config, node);
        const uint16_t room = data_room(config);
        const std::string name =
            node == SOCKET_ID_ANY ? "viommu" : fmt::format("viommu{}", node);
        auto& pool = pools.by_node_[node];
        pool.reset(rte_pktmbuf_pool_create(name.c_str(), mbufs, kMbufCache, 0, room, node));
        if (!pool)
            return fail(
                "no memory for {} packets of {} bytes: {}; give the EAL more (-m), or configure "
                "fewer net ports or queue_pairs",
                mbufs, room, rte_strerror(rte_errno));
    }
    return pools;
}

rte_mempool& Pools::of(const Net& net) const { return *by_node_.at(node_of(net)); }

}  // namespace viommu::app
