// SPDX-License-Identifier: BSD-3-Clause
#include "offload_segmenter.hh"

#include <algorithm>

namespace viommu::net::offload {

Segmenter::Segmenter(rte_mbuf& packet, const Receiver& receiver, rte_mempool& pool) noexcept
    : packet_(&packet), pool_(&pool), from_(&packet) {
    const Headers h(packet);
    from_at_ = h.payload();
    const uint32_t payload = packet.pkt_len - h.payload();
    count_ = payload == 0 ? 1 : (payload - 1) / packet.tso_segsz + 1;
    ip_ready_ = !receiver.ip_checksum;
    l4_ready_ = h.is_tcp() ? !receiver.tcp_checksum : !receiver.udp_checksum;
}

rte_mbuf* Segmenter::next() noexcept {
    if (done()) return nullptr;
    const Headers whole(*packet_);
    rte_mbuf* const segment = rte_pktmbuf_alloc(pool_);
    if (segment == nullptr || rte_pktmbuf_tailroom(segment) < whole.payload()) {
        rte_pktmbuf_free(segment);
        return nullptr;
    }
    std::memcpy(rte_pktmbuf_append(segment, uint16_t(whole.payload())), &whole.byte(0),
                whole.payload());
    const uint32_t done = made_ * packet_->tso_segsz;
    const uint32_t payload =
        std::min<uint32_t>(packet_->tso_segsz, packet_->pkt_len - whole.payload() - done);
    rte_mbuf* to = segment;
    // A place in the packet, moved only when the segment is complete.
    const rte_mbuf* from = from_;
    uint32_t at = from_at_;
    for (uint32_t left = payload; left > 0;) {
        if (at == from->data_len) {
            from = from->next;
            at = 0;
            continue;
        }
        if (rte_pktmbuf_tailroom(to) == 0) {
            rte_mbuf* const more = rte_pktmbuf_alloc(pool_);
            if (more == nullptr) {
                rte_pktmbuf_free(segment);
                return nullptr;
            }
            to->next = more;
            segment->nb_segs++;
            to = more;
        }
        const uint32_t n =
            std::min({left, uint32_t(from->data_len) - at, uint32_t(rte_pktmbuf_tailroom(to))});
        std::memcpy(rte_pktmbuf_mtod_offset(to, std::byte*, to->data_len),
                    rte_pktmbuf_mtod_offset(from, const std::byte*, at), n);
        to->data_len = uint16_t(to->data_len + n);
        segment->pkt_len += n;
        at += n;
        left -= n;
    }
    from_ = from;
    from_at_ = at;
    segment->port = packet_->port;
    patch(whole.at(*segment), *segment, payload);
    ++made_;
    return segment;
}

void Segmenter::patch(const Headers& h, rte_mbuf& segment, uint32_t payload) noexcept {
    const uint32_t l4_bytes = h.payload() - h.l4() + payload;
    if (h.is_v4()) {
        h.set_be16(h.l3() + 2, uint16_t(h.l4() - h.l3() + l4_bytes));
        h.set_be16(h.l3() + 4, uint16_t(h.be16(h.l3() + 4) + made_));
    } else {
        h.set_be16(h.l3() + 4, uint16_t(h.l4() - h.l3() - kIpv6Bytes + l4_bytes));
    }
    if (h.is_tcp()) {
        h.set_be32(h.l4() + 4, h.be32(h.l4() + 4) + made_ * packet_->tso_segsz);
        auto& flags = h.tcp_flags();
        if (made_ != 0) flags &= ~std::byte{RTE_TCP_CWR_FLAG};
        if (made_ + 1 != count_) flags &= ~std::byte{RTE_TCP_FIN_FLAG | RTE_TCP_PSH_FLAG};
    } else {
        h.set_be16(h.l4() + 4, uint16_t(l4_bytes));
    }
    // Checksums: IPv4's always, it is 20 bytes; the other as the receiver wants it.
    if (h.is_v4()) h.finish_ip();
    h.set_checksum(h.pseudo_sum(l4_bytes));
    if (l4_ready_) {
        h.set_checksum(Headers::complement(sum_of(segment, h.l4(), l4_bytes)));
        return;
    }
    segment.l2_len = packet_->l2_len;
    segment.l3_len = packet_->l3_len;
    segment.l4_len = packet_->l4_len;
    segment.ol_flags |= (h.is_v4() ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6) |
                        (h.is_tcp() ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM);
}

Adapter::~Adapter() {
    rte_pktmbuf_free(packet_);
}

void Adapter::finish() noexcept {
    rte_pktmbuf_free(packet_);
    packet_ = nullptr;
}

void Adapter::drop_pending() noexcept {
    if (packet_ == nullptr) return;
    drop_rest.add();
    finish();
}

Adapter::Moved Adapter::run(std::span<rte_mbuf* const> in, std::span<rte_mbuf*> out,
                            const Receiver& receiver) noexcept {
    Moved moved{0, 0};
    while (moved.made < out.size()) {
        if (packet_ != nullptr) {
            if (rte_mbuf* const piece = segmenter_.next(); piece != nullptr) {
                out[moved.made++] = piece;
            } else if (!segmenter_.done()) {
                drop_no_mbuf.add();
                finish();
                continue;
            }
            if (segmenter_.done()) finish();
            continue;
        }
        if (moved.taken == in.size()) break;
        rte_mbuf* const packet = in[moved.taken++];
        if (is_plain(*packet)) [[likely]] {
            out[moved.made++] = packet;
            continue;
        }
        switch (fit(*packet, receiver)) {
            case Fit::kReady:
                out[moved.made++] = packet;
                continue;
            case Fit::kSegment:
                segmenter_ = Segmenter(*packet, receiver, pool_);
                if (segmenter_.segments() <= Segmenter::kMaxSegments) {
                    segmented.add();
                    packet_ = packet;
                    continue;
                }
                [[fallthrough]];
            case Fit::kImpossible:
                drop_offload.add();
                rte_pktmbuf_free(packet);
        }
    }
    return moved;
}

}  // namespace viommu::net::offload
