// SPDX-License-Identifier: BSD-3-Clause
/// The plain way and the way that can handle any chain do the same: twins that see the same guest
/// agree in every byte of its memory, every packet, every counter and every fault.
#include "net_config.hh"
#include "packets.hh"

namespace viommu::net::test {
namespace {

/// l2_len, l3_len and l4_len in rte_mbuf::tx_offload.
constexpr uint64_t kLens = (uint64_t{1} << (7 + 9 + 8)) - 1;

struct Twin {
    Twin(uint16_t mbufs, uint16_t room, const NetRig::Options& options, bool plain)
        : pool(mbufs, room), rig(pool, options) {
        rig.port->set_plain_way(plain);
    }
    Pool pool;
    NetRig rig;
};

class Twins {
  public:
    explicit Twins(std::mt19937& random)
        : random_(random),
          mbufs_(uint16_t(pick(3) == 0 ? 3 + pick(30) : 255)),
          room_(uint16_t(pick(2) == 0 ? 64 + pick(400) : 2048)),
          options_(choose()),
          one_piece_(pick(2) != 0),
          a_(mbufs_, room_, options_, true),
          b_(mbufs_, room_, options_, false) {
        // Pages that follow one another there, too: what is larger than one is in one piece.
        if (one_piece_)
            both([&](NetRig& r) {
                std::vector<size_t> pages;
                for (uint64_t i = 0; i < NetRig::kDataPages; ++i)
                    pages.push_back(r.page_of(NetRig::kData + i * kPage));
                std::sort(pages.begin(), pages.end());
                for (uint64_t i = 0; i < NetRig::kDataPages; ++i)
                    r.unmap_page(NetRig::kData + i * kPage);
                for (uint64_t i = 0; i < NetRig::kDataPages; ++i)
                    r.map_page(NetRig::kData + i * kPage, pages[i]);
            });
        // Among the data there are pages that cannot be read, or not written, or are not there.
        for (unsigned i = 0; i < 12; ++i) {
            const uint64_t page = NetRig::kData + (1 + pick(NetRig::kDataPages - 2)) * kPage;
            const unsigned how = pick(3);
            if (page_is_odd_[(page - NetRig::kData) / kPage]) continue;
            page_is_odd_[(page - NetRig::kData) / kPage] = true;
            both([&](NetRig& r) {
                if (how == 0)
                    r.unmap_page(page);
                else
                    r.set_rights(page, how == 1 ? Access::kRead : Access::kWrite);
            });
        }
        Bytes noise(NetRig::kDataPages * kPage);
        for (auto& b : noise) b = std::byte(random_());
        both([&](NetRig& r) { r.space.write(NetRig::kData, noise.data(), noise.size()); });
    }

    void run(unsigned steps) {
        for (unsigned step = 0; step < steps; ++step) {
            SCOPED_TRACE(fmt::format("step {}", step));
            const unsigned chains = pick(40);
            const bool hostile = pick(4) == 0;
            for (unsigned i = 0; i < chains; ++i) offer(pick(2) != 0);
            if (hostile) spoil();
            both([](NetRig& r) { r.tx->publish(), r.rx->publish(); });
            if (pick(50) == 0 && !packed()) {
                const uint16_t jump = uint16_t(random_());
                both([&](NetRig& r) { NetRig::split(r.tx).publish_index(jump); });
            }
            take();
            give();
            if (pick(5) == 0) move_the_table();
            reap();
            compare();
            if (testing::Test::HasFatalFailure()) return;
        }
    }
    uint64_t packets() { return a_.rig.from().packets.was() + a_.rig.to().packets.was(); }
    uint64_t faults() { return a_.rig.from().drop_fault.was() + a_.rig.to().drop_fault.was(); }
    uint64_t malformed() { return a_.rig.from().drop_malformed.was(); }
    uint64_t cut() { return a_.rig.to().segmented.was(); }
    uint64_t impossible() { return a_.rig.to().drop_offload.was(); }
    uint64_t chained() const { return chained_; }
    uint64_t broken() { return a_.rig.from().ring_broken.was() + a_.rig.to().ring_broken.was(); }

  private:
    uint32_t pick(uint32_t below) { return random_() % below; }
    bool packed() const { return (options_.acked & kPacked) != 0; }
    template <class F>
    void both(F&& f) {
        f(a_.rig);
        f(b_.rig);
    }
    NetRig::Options choose() {
        NetRig::Options o;
        const bool is_packed = pick(2) != 0;
        o.acked = kAcked | (pick(3) != 0 ? kMergeable : 0) | (is_packed ? kPacked : 0) |
                  (pick(2) != 0 ? kEvents : 0) | (pick(3) == 0 ? kInOrder : 0);
        if (pick(4) != 0) o.acked |= kOffloads & (random_() | uint64_t{random_()} << 32);
        if (pick(2) != 0) o.acked |= bit(wire::VIRTIO_NET_F_CSUM);
        o.size = is_packed ? 3 + pick(100) : 4u << pick(5);
        o.start = uint16_t(is_packed ? pick(o.size) | (pick(2) << 15) : 65500 + pick(100));
        o.ring_skew = pick(2) != 0;
        o.seed = random_();
        if (pick(3) == 0) o.config.mtu = uint16_t(68 + pick(pick(2) == 0 ? 1500 : 9000));
        return o;
    }

    /// The chains that drivers make, more or less.
    void offer(bool transmit) {
        const uint16_t flags = transmit ? 0 : virtq::test::kWrite;
        const uint32_t count = pick(5) == 0 ? 1 + pick(4) : 1;
        std::vector<Desc> buffers;
        for (uint32_t i = 0; i < count; ++i) {
            const uint32_t bytes = pick(8) == 0   ? pick(30)
                                   : pick(8) == 0 ? 2000 + pick(12000)
                                   : pick(2) == 0 ? 60 + pick(100)
                                                  : 100 + pick(2500);
            const uint64_t at = pick(20) == 0
                                    ? ~uint64_t{0} - pick(3000)
                                    : NetRig::kData + pick(NetRig::kDataPages * kPage - bytes);
            const uint16_t other = pick(30) == 0 ? virtq::test::kWrite : 0;
            buffers.push_back({at, bytes, uint16_t(flags ^ other), 0});
        }
        if (transmit && pick(2) != 0) write_packet(buffers);
        const bool indirect = pick(10) == 0;
        const uint64_t table = NetRig::kData + pick(NetRig::kDataPages * kPage - 64);
        both([&](NetRig& r) {
            Driver& driver = transmit ? *r.tx : *r.rx;
            if (indirect)
                driver.indirect(table, buffers);
            else
                driver.chain(buffers);
        });
    }
    Shape shape(size_t payload) {
        return {.v6 = pick(2) != 0,
                .udp = pick(2) != 0,
                .vlans = pick(3),
                .payload = payload,
                .salt = pick(100)};
    }
    /// Where the buffers are, at least the beginning of a packet that leaves something undone; some
    /// of it may be wrong.
    void write_packet(const std::vector<Desc>& buffers) {
        uint64_t bytes = 0;
        for (const Desc& d : buffers) bytes += d.len;
        const Shape s = shape(bytes > 150 ? bytes - 150 : 0);
        auto h = pick(3) == 0 ? needs_csum(s) : gso(s, uint16_t(pick(6) == 0 ? 0 : 1 + pick(900)));
        for (unsigned n = pick(3); n > 0; --n)
            reinterpret_cast<uint8_t*>(&h)[pick(10)] = uint8_t(pick(2) == 0 ? pick(8) : random_());
        Bytes all(kHeader);
        std::memcpy(all.data(), &h, kHeader);
        const Bytes b = make_packet(s);
        all.insert(all.end(), b.begin(), b.end());
        if (pick(4) == 0) all.at(kHeader + pick(42)) = std::byte(random_());
        size_t at = 0;
        for (const Desc& d : buffers) {
            const size_t n = std::min<size_t>(d.len, all.size() - at);
            if (d.addr < NetRig::kData + NetRig::kDataPages * kPage)
                both([&](NetRig& r) { r.space.write(d.addr, all.data() + at, n); });
            at += n;
        }
    }
    /// Flags that agree with the packet, and such that do not.
    void set_flags(rte_mbuf& a, rte_mbuf& b, const Shape& s) {
        constexpr uint64_t kSome[] = {
            RTE_MBUF_F_TX_IPV4,         RTE_MBUF_F_TX_IPV6,      RTE_MBUF_F_TX_IP_CKSUM,
            RTE_MBUF_F_TX_TCP_CKSUM,    RTE_MBUF_F_TX_UDP_CKSUM, RTE_MBUF_F_TX_SCTP_CKSUM,
            RTE_MBUF_F_TX_TCP_SEG,      RTE_MBUF_F_TX_UDP_SEG,   RTE_MBUF_F_TX_TUNNEL_VXLAN,
            RTE_MBUF_F_RX_LRO,          RTE_MBUF_F_RX_L4_CKSUM_GOOD,
            RTE_MBUF_F_RX_L4_CKSUM_BAD, RTE_MBUF_F_RX_L4_CKSUM_NONE};
        uint64_t flags = s.v6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4;
        flags |= s.udp ? RTE_MBUF_F_TX_UDP_CKSUM : RTE_MBUF_F_TX_TCP_CKSUM;
        if (pick(2) == 0)
            flags |= (s.udp ? RTE_MBUF_F_TX_UDP_SEG : RTE_MBUF_F_TX_TCP_SEG) |
                     (s.v6 ? 0 : RTE_MBUF_F_TX_IP_CKSUM);
        if (pick(4) == 0) flags = 0;
        for (unsigned n = pick(5) == 0 ? 1 + pick(3) : 0; n > 0; --n)
            flags ^= kSome[pick(std::size(kSome))];
        a.l2_len = s.l2() & 0x7f;
        a.l3_len = s.l3_bytes() & 0x1ff;
        a.l4_len = s.l4_bytes() & 0xff;
        if (pick(10) == 0) a.l3_len = random_() & 0x1ff;
        if (pick(10) == 0) a.l4_len = random_() & 0xff;
        a.tso_segsz = uint16_t(pick(20) == 0 ? pick(3) : 100 + pick(1400));
        a.ol_flags = flags;
        b.tx_offload = a.tx_offload;
        b.ol_flags = flags;
    }

    /// Write what no driver writes into a ring.
    void spoil() {
        const unsigned q = pick(2);
        const uint32_t slot = pick(options_.size);
        const unsigned what = pick(packed() ? 3 : 4);
        const uint64_t junk = uint64_t{random_()} << 32 | random_();
        both([&](NetRig& r) {
            const virtq::Vring& v = r.vrings[q];
            switch (what) {
                case 0: r.space.put(v.desc + 16 * slot, junk); break;
                case 1: r.space.put(v.desc + 16 * slot + 8, uint32_t(junk)); break;
                case 2:  // flags, or id of a packed ring
                    r.space.put(v.desc + 16 * slot + 12, uint16_t(junk >> (packed() ? 0 : 13)));
                    break;
                default: r.space.put(v.avail + 4 + 2 * slot, uint16_t(junk % (2 * v.size)));
            }
        });
    }
    void take() {
        const unsigned most = 1 + pick(NetPort::kBurst + 8);
        rte_mbuf* a[64];
        rte_mbuf* b[64];
        const unsigned n = a_.rig.port->from_guest(0, {a, most});
        const unsigned m = b_.rig.port->from_guest(0, {b, most});
        std::vector<Bytes> of_a, of_b;
        ASSERT_EQ(n, m);
        for (unsigned i = 0; i < n; ++i) {
            ASSERT_EQ(a[i]->ol_flags, b[i]->ol_flags);
            if (a[i]->ol_flags != 0) {
                ASSERT_EQ(a[i]->tx_offload & kLens, b[i]->tx_offload & kLens);
            }
            if (offload::is_large(*a[i])) {
                ASSERT_EQ(a[i]->tso_segsz, b[i]->tso_segsz);
            }
        }
        for (unsigned i = 0; i < n; ++i) {
            ASSERT_EQ(a[i]->nb_segs, b[i]->nb_segs);
            chained_ += a[i]->nb_segs > 1;
            of_a.push_back(test::take(a[i]));
        }
        for (unsigned i = 0; i < m; ++i) of_b.push_back(test::take(b[i]));
        ASSERT_EQ(of_a, of_b);
    }
    void give() {
        const unsigned n = pick(NetPort::kBurst + 4);
        std::vector<rte_mbuf*> a, b;
        for (unsigned i = 0; i < n; ++i) {
            const size_t bytes = pick(10) == 0 ? pick(6000) : pick(1600);
            const bool undone = pick(2) != 0;
            const Shape s = shape(bytes);
            const Bytes f = undone ? make_packet(s) : frame(14 + bytes, i);
            const size_t segment = room_;
            if (rte_mempool_avail_count(&a_.pool.get()) <= f.size() / segment + 1) break;
            a.push_back(a_.pool.packet(f, segment));
            b.push_back(b_.pool.packet(f, segment));
            if (undone) set_flags(*a.back(), *b.back(), s);
        }
        const unsigned of_a = a_.rig.port->to_guest(0, a);
        const unsigned of_b = b_.rig.port->to_guest(0, b);
        rte_pktmbuf_free_bulk(a.data() + of_a, unsigned(a.size()) - of_a);
        rte_pktmbuf_free_bulk(b.data() + of_b, unsigned(b.size()) - of_b);
        ASSERT_EQ(of_a, of_b);
    }
    /// An UNMAP of something else: the rings are looked for again, and are where they were.
    void move_the_table() {
        both([&](NetRig& r) {
            r.map_page(0x60000000, NetRig::kPages - 1);
            r.unmap_page(0x60000000);
        });
    }
    /// A driver that trusts the device stops at the first thing that it did not send; after a
    /// hostile step that is its own fault.
    void reap() {
        both([](NetRig& r) {
            for (Driver* driver : {r.tx.get(), r.rx.get()}) {
                try {
                    while (driver->pop()) {
                    }
                } catch (const std::runtime_error&) {
                }
            }
        });
    }
    void compare() {
        ASSERT_EQ(std::memcmp(a_.rig.space.host(0), b_.rig.space.host(0), NetRig::kPages * kPage),
                  0);
        const auto counters = [](const Counters& of) {
            std::vector<std::pair<std::string, uint64_t>> all;
            of.for_each([&](const char* name, uint64_t n) { all.emplace_back(name, n); });
            return all;
        };
        ASSERT_EQ(counters(a_.rig.from()), counters(b_.rig.from()));
        ASSERT_EQ(counters(a_.rig.to()), counters(b_.rig.to()));
        const auto of_a = a_.rig.take_faults(), of_b = b_.rig.take_faults();
        ASSERT_EQ(of_a.size(), of_b.size());
        for (size_t i = 0; i < of_a.size(); ++i)
            ASSERT_EQ(std::memcmp(&of_a[i], &of_b[i], sizeof of_a[i]), 0);
        for (const int q : {0, 1}) ASSERT_EQ(a_.rig.call[q].drain(), b_.rig.call[q].drain());
    }

    std::mt19937& random_;
    const uint16_t mbufs_, room_;
    const NetRig::Options options_;
    const bool one_piece_;
    Twin a_, b_;
    std::array<bool, NetRig::kDataPages> page_is_odd_{};
    uint64_t chained_ = 0;  // packets from the guest in several mbufs
};

TEST(Equivalence, both_ways_do_the_same_whatever_the_guest_does) {
    const unsigned seed = choose_seed();
    SCOPED_TRACE(fmt::format("VIOMMU_SEED={}", seed));
    std::printf("seed %u\n", seed);
    std::mt19937 random(seed);
    uint64_t packets = 0, faults = 0, broken = 0, malformed = 0, cut = 0, impossible = 0;
    uint64_t chained = 0;
    for (unsigned run = 0; run < 80; ++run) {
        SCOPED_TRACE(fmt::format("run {}", run));
        Twins twins(random);
        twins.run(50);
        if (HasFatalFailure()) return;
        packets += twins.packets();
        faults += twins.faults();
        broken += twins.broken();
        malformed += twins.malformed();
        cut += twins.cut();
        impossible += twins.impossible();
        chained += twins.chained();
    }
    // It would say nothing if nothing had happened.
    EXPECT_GT(packets, 1000u);
    EXPECT_GT(chained, 1000u);
    EXPECT_GT(faults, 100u);
    EXPECT_GT(broken, 3u);
    EXPECT_GT(malformed, 300u);
    EXPECT_GT(cut, 100u);
    EXPECT_GT(impossible, 100u);
}

}  // namespace
}  // namespace viommu::net::test
