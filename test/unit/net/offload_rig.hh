// SPDX-License-Identifier: BSD-3-Clause
/// A guest that sends packets behind headers of its choice, and reads those that it gets.
#pragma once

#include "net_config.hh"
#include "packets.hh"

namespace viommu::net::test {

struct Received {
    wire::virtio_net_hdr header;
    Bytes bytes;
};

class OffloadRig : public NetRig {
  public:
    using NetRig::NetRig;
    static Options with(uint64_t features, uint32_t size = 64) {
        return {.size = size, .acked = kAcked | kMergeable | features};
    }

    // --- sending ---------------------------------------------------------------------------------

    /// In pieces that end at `cuts`, bytes from the header's first on.
    void send(const wire::virtio_net_hdr& h, const Bytes& b, std::vector<uint32_t> cuts = {},
              bool indirect = false) {
        const auto all = uint32_t(kHeader + b.size());
        const uint64_t at = data(all);
        space.write(at, &h, kHeader);
        space.write(at + kHeader, b.data(), b.size());
        cuts.push_back(all);
        std::vector<Desc> chain;
        for (uint32_t from = 0; const uint32_t to : cuts) {
            chain.push_back({at + from, to - from, 0, 0});
            from = to;
        }
        if (indirect)
            tx->indirect(data(uint32_t(16 * chain.size())), chain);
        else
            tx->chain(chain);
        tx->publish();
    }
    /// Packets that the port has taken; the caller's.
    std::vector<rte_mbuf*> taken(size_t most = NetPort::kBurst) {
        std::vector<rte_mbuf*> packets(most);
        packets.resize(port->from_guest(0, packets));
        return packets;
    }

    // --- receiving -------------------------------------------------------------------------------

    /// Provide `count` buffers, each at a place of its own, to be used again when it has been read.
    void provide(unsigned count, uint32_t bytes) {
        for (unsigned i = 0; i < count; ++i) provide_at(data(bytes), bytes);
        rx->publish();
    }
    /// Packets that have arrived. Their buffers are given again, if `again`.
    std::vector<Received> received(bool again = false) {
        std::vector<Received> all;
        std::vector<Buffer> free;
        unsigned left = 0;
        while (const auto used = rx->pop()) {
            const Buffer buffer = buffers_.at(used->id);
            buffers_.erase(used->id);
            free.push_back(buffer);
            const Bytes b = read(buffer.at, used->len);
            if (left == 0) {
                if (b.size() < kHeader) {
                    ADD_FAILURE() << "a buffer of " << b.size() << " bytes";
                    break;
                }
                all.push_back({});
                std::memcpy(&all.back().header, b.data(), kHeader);
                left = all.back().header.num_buffers;
                EXPECT_GE(left, 1u);
                all.back().header.num_buffers = 0;
                all.back().bytes.assign(b.begin() + kHeader, b.end());
            } else {
                all.back().bytes.insert(all.back().bytes.end(), b.begin(), b.end());
            }
            if (left > 0) --left;
        }
        EXPECT_EQ(left, 0u) << "part of a packet";
        if (again) {
            for (const auto& b : free) provide_at(b.at, b.bytes);
            rx->publish();
        }
        return all;
    }
    size_t provided() const { return buffers_.size(); }
    /// Give the port packets. Returns how many it took; the rest is freed.
    unsigned deliver_all(std::vector<rte_mbuf*> packets) {
        const unsigned n = port->to_guest(0, packets);
        rte_pktmbuf_free_bulk(packets.data() + n, unsigned(packets.size()) - n);
        return n;
    }

  private:
    struct Buffer {
        uint64_t at;
        uint32_t bytes;
    };
    void provide_at(uint64_t at, uint32_t bytes) {
        const auto id = rx->chain({{at, bytes, virtq::test::kWrite, 0}});
        ASSERT_TRUE(id);
        buffers_[*id] = {at, bytes};
    }

    std::map<uint32_t, Buffer> buffers_;
};

/// A packet as from_guest() gives it, made by hand.
inline rte_mbuf* unfinished(const Pool& pool, const Shape& s, uint16_t mss = 0,
                            size_t segment = 2048) {
    rte_mbuf* m = pool.packet(make_packet(s), segment);
    m->l2_len = s.l2() & 0x7f;
    m->l3_len = s.l3_bytes() & 0x1ff;
    m->l4_len = s.l4_bytes() & 0xff;
    m->ol_flags = (s.v6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4) |
                  (s.udp ? RTE_MBUF_F_TX_UDP_CKSUM : RTE_MBUF_F_TX_TCP_CKSUM);
    if (mss != 0) {
        m->tso_segsz = mss;
        m->ol_flags |= (s.udp ? RTE_MBUF_F_TX_UDP_SEG : RTE_MBUF_F_TX_TCP_SEG) |
                       (s.v6 ? 0 : RTE_MBUF_F_TX_IP_CKSUM);
    }
    return m;
}

}  // namespace viommu::net::test
