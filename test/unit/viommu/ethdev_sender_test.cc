// SPDX-License-Identifier: BSD-3-Clause
// Sent to a net_ring, which has no offloads and gives back what it was sent.
#include "ethdev_sender.hh"

#include <rte_ether.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_tcp.h>

#include <map>

#include "ethdev.hh"
#include "pool.hh"

namespace viommu::app {
namespace {

class EthdevSenderTest : public WithPool {
  protected:
    void SetUp() override {
        WithPool::SetUp();
        auto opened =
            Ethdev::open({Peer::Kind::kVdev, "net_ring9", {"vm.toml", 7, "peer"}}, {}, *pool_);
        ASSERT_TRUE(opened.has_value()) << opened.error().message;
        ethdev_ = std::move(*opened);
    }
    void TearDown() override {
        while (!received().empty()) {
        }
        ethdev_.reset();
        WithPool::TearDown();
    }

    /// TCP in IPv4 with `payload` bytes that count up, as a guest leaves it: without checksums, and
    /// to be cut into pieces of `mss` if it is not 0.
    rte_mbuf* tcp(uint16_t payload, uint16_t mss) {
        rte_mbuf* m = packet(uint16_t(kHeaders + payload));
        auto* bytes = rte_pktmbuf_mtod(m, uint8_t*);
        std::fill_n(bytes, m->pkt_len, uint8_t{0});
        for (uint16_t i = 0; i < payload; i++) bytes[kHeaders + i] = uint8_t(i);
        auto* ether = rte_pktmbuf_mtod(m, rte_ether_hdr*);
        ether->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
        auto* ip = rte_pktmbuf_mtod_offset(m, rte_ipv4_hdr*, sizeof *ether);
        ip->version_ihl = 0x45;
        ip->total_length = rte_cpu_to_be_16(uint16_t(m->pkt_len - sizeof *ether));
        ip->time_to_live = 64;
        ip->next_proto_id = IPPROTO_TCP;
        ip->src_addr = rte_cpu_to_be_32(0x0a000001);
        ip->dst_addr = rte_cpu_to_be_32(0x0a000002);
        auto* header = rte_pktmbuf_mtod_offset(m, rte_tcp_hdr*, sizeof *ether + sizeof *ip);
        header->data_off = 0x50;
        header->tcp_flags = RTE_TCP_ACK_FLAG;
        m->l2_len = sizeof *ether;
        m->l3_len = sizeof *ip;
        m->l4_len = sizeof *header;
        m->ol_flags = RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM;
        if (mss != 0) {
            m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
            m->tso_segsz = mss;
        }
        header->cksum = rte_ipv4_phdr_cksum(ip, m->ol_flags);
        return m;
    }

    /// What has come back: payloads; each packet is checked.
    std::vector<std::vector<uint8_t>> received() {
        std::vector<std::vector<uint8_t>> out;
        rte_mbuf* packets[32];
        const unsigned n = ethdev_->receive(0, packets);
        for (unsigned i = 0; i < n; i++) {
            rte_mbuf* m = packets[i];
            EXPECT_EQ(rte_pktmbuf_linearize(m), 0);
            if (m->pkt_len > kHeaders) {
                auto* ip = rte_pktmbuf_mtod_offset(m, rte_ipv4_hdr*, sizeof(rte_ether_hdr));
                EXPECT_EQ(rte_be_to_cpu_16(ip->total_length), m->pkt_len - sizeof(rte_ether_hdr));
                EXPECT_EQ(rte_ipv4_cksum(ip), 0) << "over a header with its right sum";
                EXPECT_EQ(rte_ipv4_udptcp_cksum_verify(ip, ip + 1), 0);
            }
            const auto* bytes = rte_pktmbuf_mtod(m, const uint8_t*);
            out.emplace_back(bytes + std::min(kHeaders, m->pkt_len), bytes + m->pkt_len);
            rte_pktmbuf_free(m);
        }
        return out;
    }
    std::map<std::string, uint64_t> counters() const {
        std::map<std::string, uint64_t> out;
        ethdev_->sender(0).for_each(
            [&](std::string_view name, uint64_t value) { out[std::string(name)] = value; });
        return out;
    }

    static constexpr uint32_t kHeaders = 14 + 20 + 20;
    std::unique_ptr<Ethdev> ethdev_;
};

TEST_F(EthdevSenderTest, checksum_that_the_device_has_not_is_finished) {
    rte_mbuf* in[] = {tcp(100, 0)};
    ASSERT_EQ(ethdev_->send(0, in), 1u);
    const auto out = received();
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(out[0].size(), 100u);
}

TEST_F(EthdevSenderTest, large_packet_is_cut_and_its_bytes_arrive_in_order_among_others) {
    rte_mbuf* in[] = {packet(40), tcp(250, 100), packet(50)};
    ASSERT_EQ(ethdev_->send(0, in), 3u);
    const auto out = received();
    ASSERT_EQ(out.size(), 5u);
    std::vector<uint8_t> stream;
    for (size_t i = 1; i < 4; i++) stream.insert(stream.end(), out[i].begin(), out[i].end());
    ASSERT_EQ(stream.size(), 250u);
    for (size_t i = 0; i < stream.size(); i++) ASSERT_EQ(stream[i], uint8_t(i));
    EXPECT_EQ(counters()["segmented"], 1u);
}

TEST_F(EthdevSenderTest, full_device_takes_what_it_can_and_the_rest_is_counted) {
    constexpr unsigned kHolds = 1023;  // a queue of net_ring
    rte_mempool* pool =
        rte_pktmbuf_pool_create("large", 2047, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    ASSERT_NE(pool, nullptr);
    for (unsigned i = 0; i < kHolds - 2; i++) {
        rte_mbuf* one[] = {rte_pktmbuf_alloc(pool)};
        ASSERT_EQ(ethdev_->send(0, one), 1u) << i;
    }
    rte_mbuf* in[] = {tcp(500, 100), tcp(100, 0)};
    EXPECT_EQ(ethdev_->send(0, in), 2u);
    EXPECT_EQ(counters()["drop_pieces"], 4u) << "6 packets, room for 2";
    rte_mbuf* finished[] = {packet(40)};
    EXPECT_EQ(ethdev_->send(0, finished), 0u) << "what needed nothing stays the caller's";
    rte_pktmbuf_free(finished[0]);
    size_t came = 0;
    for (size_t n; (n = received().size()) != 0;) came += n;
    EXPECT_EQ(came, kHolds);
    EXPECT_EQ(rte_mempool_in_use_count(pool), 0u);
    rte_mempool_free(pool);
}

TEST_F(EthdevSenderTest, burst_of_finished_packets_is_sent_as_it_is) {
    rte_mbuf* in[] = {packet(40), packet(50)};
    ASSERT_EQ(ethdev_->send(0, in), 2u);
    rte_mbuf* out[4];
    ASSERT_EQ(ethdev_->receive(0, out), 2u);
    EXPECT_EQ(out[0], in[0]);
    EXPECT_EQ(out[1], in[1]);
    rte_pktmbuf_free_bulk(out, 2);
}

}  // namespace
}  // namespace viommu::app
