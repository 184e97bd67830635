// SPDX-License-Identifier: BSD-3-Clause
/// Private to lib/net: mbufs of a burst, got from a pool at once.
#pragma once

#include <rte_mbuf.h>

#include <algorithm>
#include <span>

#include "copy.hh"

namespace viommu::net {

/// Bytes of a frame that fit into one mbuf of a pool.
inline uint32_t room_of_mbufs(rte_mempool& pool) noexcept {
    const uint32_t room = rte_pktmbuf_data_room_size(&pool);
    return room - std::min<uint32_t>(RTE_PKTMBUF_HEADROOM, room);
}

// A fresh mbuf is as it was in its pool, where one has no next, one segment and one reference.

/// All `n`, or none.
inline bool get_fresh(rte_mempool& pool, rte_mbuf** to, unsigned n) noexcept {
    return rte_mempool_get_bulk(&pool, reinterpret_cast<void**>(to), n) == 0;
}
/// As many of `n` as there are. Returns how many.
inline unsigned get_some_fresh(rte_mempool& pool, rte_mbuf** to, unsigned n) noexcept {
    unsigned got = 0;
    while (got < n && get_fresh(pool, to + got, 1)) ++got;
    return got;
}
inline void put_fresh(rte_mempool& pool, std::span<rte_mbuf*> fresh) noexcept {
    if (fresh.empty()) return;
    rte_mempool_put_bulk(&pool, reinterpret_cast<void**>(fresh.data()), unsigned(fresh.size()));
}

/// Makes a segment of a fresh mbuf. What a flag would have to announce is left alone.
[[gnu::always_inline]] inline void begin_segment(rte_mbuf* m, uint32_t bytes) noexcept {
    m->data_off = std::min<uint16_t>(RTE_PKTMBUF_HEADROOM, m->buf_len);
    m->ol_flags = 0;
    m->data_len = uint16_t(bytes);
}

/// Makes a packet of a fresh mbuf, its `bytes` still to be filled in.
[[gnu::always_inline]] inline void begin(rte_mbuf* m, uint32_t bytes) noexcept {
    begin_segment(m, bytes);
    m->port = RTE_MBUF_PORT_INVALID;
    m->packet_type = 0;
    m->pkt_len = bytes;
    m->vlan_tci = 0;
}

/// Puts a frame that does not fit into `packet`, which has begun, there and into mbufs of `more`,
/// of which there are enough. Returns how many. `room`: of each.
[[gnu::noinline]] inline unsigned copy_segments(rte_mbuf* packet, rte_mbuf* const* more,
                                                uint32_t room, const std::byte* from,
                                                uint32_t bytes) noexcept {
    rte_mbuf* last = packet;
    last->data_len = uint16_t(room);
    unsigned taken = 0;
    for (;;) {
        copy_frame(rte_pktmbuf_mtod(last, std::byte*), from, last->data_len);
        from += last->data_len;
        bytes -= last->data_len;
        if (bytes == 0) break;
        rte_mbuf* const next = more[taken++];
        begin_segment(next, std::min(bytes, room));
        last = last->next = next;
    }
    packet->nb_segs = uint16_t(1 + taken);
    return taken;
}

}  // namespace viommu::net
