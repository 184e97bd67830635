// SPDX-License-Identifier: BSD-3-Clause
/// What one guest leaves undone arrives right at another, whatever each has accepted: random
/// packets through two ports, judged by a checker that does what a receiving kernel does.
#include "offload_rig.hh"

namespace viommu::net::test {
namespace {

using namespace wire;

constexpr bool has(uint64_t features, unsigned n) { return (features & bit(n)) != 0; }

struct Sent {
    Shape shape;
    uint16_t mss;     ///< 0: not to be cut
    bool unfinished;  ///< the checksum is the receiver's business
};

/// One guest that sends and one that receives, and two ports.
class Guests {
  public:
    explicit Guests(std::mt19937& random) : random_(random), pool_(1023, room()) {
        sends_ = negotiated(any(kOffloads));
        takes_ = negotiated(any(kOffloads));
        const bool mergeable = random_() % 4 != 0;
        auto options = OffloadRig::with(sends_ | any(kPacked | kEvents), 128);
        from_.emplace(pool_, options);
        options = OffloadRig::with(takes_ | any(kPacked | kEvents), 512);
        if (!mergeable) options.acked &= ~kMergeable;
        options.seed = random_();
        to_.emplace(pool_, options);
        const bool large = (takes_ & (bit(VIRTIO_NET_F_GUEST_TSO4) | bit(VIRTIO_NET_F_GUEST_TSO6) |
                                      bit(VIRTIO_NET_F_GUEST_USO4) |
                                      bit(VIRTIO_NET_F_GUEST_USO6))) != 0;
        buffer_ = mergeable ? 256 + random_() % 3000 : large ? 32768 : 2048;
        slots_ = std::min<unsigned>(400, unsigned(NetRig::kDataPages * kPage / buffer_));
        max_pieces_ = std::min(slots_, 50u);
        to_->provide(slots_, buffer_);
    }

    void exchange() {
        std::vector<Sent> sent;
        left_ = slots_;
        for (unsigned n = 1 + random_() % 5; n > 0 && left_ >= buffers_for(1500); --n)
            sent.push_back(send());
        auto packets = from_->taken();
        ASSERT_EQ(packets.size(), sent.size());
        std::vector<Received> got;
        for (std::span<rte_mbuf*> rest = packets; !rest.empty();) {
            const unsigned n = to_->port->to_guest(0, rest);
            const auto arrived = to_->received(true);
            got.insert(got.end(), arrived.begin(), arrived.end());
            if (n == 0) break;
            rest = rest.subspan(n);
        }
        while (from_->tx->pop()) {
        }
        ASSERT_EQ(to_->to().drop_rest.was(), 0u) << "the test gives enough buffers";
        auto next = got.begin();
        for (const Sent& s : sent) {
            SCOPED_TRACE(fmt::format("v6 {} udp {} vlans {} ip options {} payload {} mss {} {}",
                                     s.shape.v6, s.shape.udp, s.shape.vlans, s.shape.ip_options,
                                     s.shape.payload, s.mss, s.unfinished));
            const size_t pieces = whole(s) ? 1 : (s.shape.payload - 1) / s.mss + 1;
            ASSERT_GE(size_t(got.end() - next), pieces);
            judge(s, {next, next + long(pieces)});
            if (testing::Test::HasFailure()) return;
            next += long(pieces);
        }
        EXPECT_EQ(next, got.end());
    }
    uint64_t cut() const { return to_->to().segmented.was(); }
    uint64_t packets() const { return to_->to().packets.was(); }

  private:
    uint16_t room() { return random_() % 3 == 0 ? uint16_t(200 + random_() % 500) : 2048; }
    /// Most of these bits, or few.
    uint64_t any(uint64_t bits) {
        const uint64_t r = uint64_t{random_()} << 32 | random_();
        const uint64_t t = uint64_t{random_()} << 32 | random_();
        return bits & (random_() % 2 == 0 ? r | t : r);
    }

    unsigned buffers_for(size_t bytes) const { return unsigned((bytes - 1) / buffer_ + 1); }
    Sent send() {
        Sent s{};
        s.shape = {.v6 = random_() % 2 == 0,
                   .udp = random_() % 2 == 0,
                   .vlans = unsigned(random_() % 3),
                   .payload = random_() % 1300,
                   .salt = unsigned(random_() % 100)};
        if (!s.shape.v6 && random_() % 4 == 0) s.shape.ip_options = 4 + 4 * (random_() % 10);
        if (!s.shape.udp && random_() % 4 == 0) s.shape.tcp_options = 4 + 4 * (random_() % 10);
        if (random_() % 3 == 0) s.shape.tcp_flags = uint8_t(random_());
        s.unfinished = has(sends_, VIRTIO_NET_F_CSUM) && random_() % 4 != 0;
        const bool cwr = !s.shape.udp && (s.shape.tcp_flags & 0x80) != 0;
        const bool large =
            s.unfinished && (!cwr || has(sends_, VIRTIO_NET_F_HOST_ECN)) &&
            has(sends_, s.shape.udp  ? VIRTIO_NET_F_HOST_USO
                        : s.shape.v6 ? VIRTIO_NET_F_HOST_TSO6
                                     : VIRTIO_NET_F_HOST_TSO4);
        auto h = s.unfinished ? needs_csum(s.shape) : virtio_net_hdr{};
        const size_t payload = 1 + random_() % 25000;
        const size_t mss = std::max<size_t>(300 + random_() % 1150, payload / max_pieces_ + 1);
        const size_t need = (payload / mss + 1) * buffers_for(mss + 150);
        if (large && need <= left_ && random_() % 4 != 0) {
            left_ -= unsigned(need);
            s.shape.payload = payload;
            s.mss = uint16_t(mss);
            h = gso(s.shape, s.mss);
            if (cwr) h.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
            h.hdr_len = uint16_t(random_());
            if (s.shape.payload <= s.mss) s.mss = 0;
        } else {
            left_ -= buffers_for(1500);
        }
        h.num_buffers = uint16_t(random_());
        const Bytes b = s.unfinished ? make_packet(s.shape) : finished(s.shape);
        std::vector<uint32_t> cuts;
        for (unsigned n = random_() % 3; n > 0; --n)
            cuts.push_back(1 + random_() % uint32_t(kHeader + b.size() - 1));
        std::sort(cuts.begin(), cuts.end());
        cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
        from_->send(h, b, cuts, random_() % 4 == 0);
        return s;
    }

    /// The receiver takes it as it is.
    bool whole(const Sent& s) const {
        if (s.mss == 0) return true;
        if (s.shape.udp)
            return has(takes_, s.shape.v6 ? VIRTIO_NET_F_GUEST_USO6 : VIRTIO_NET_F_GUEST_USO4);
        return has(takes_, s.shape.v6 ? VIRTIO_NET_F_GUEST_TSO6 : VIRTIO_NET_F_GUEST_TSO4) &&
               ((s.shape.tcp_flags & 0x80) == 0 || has(takes_, VIRTIO_NET_F_GUEST_ECN));
    }
    void judge(const Sent& s, std::vector<Received> got) const {
        std::vector<Bytes> pieces;
        for (auto& r : got) {
            check_header(s, r.header);
            if (r.header.flags == VIRTIO_NET_HDR_F_NEEDS_CSUM) {
                ASSERT_EQ(r.header.csum_start, s.shape.l4());
                ASSERT_EQ(r.header.csum_start + r.header.csum_offset, s.shape.checksum_at());
                finish_checksum(r.bytes, r.header);
            }
            pieces.push_back(r.bytes);
        }
        if (whole(s))
            EXPECT_EQ(pieces[0], finished(s.shape));
        else
            check_pieces(pieces, make_packet(s.shape), s.shape, s.mss, true);
    }
    /// 5.1.6.4.1: nothing that was not negotiated, and nothing that makes no sense.
    void check_header(const Sent& s, const virtio_net_hdr& h) const {
        EXPECT_EQ(h.flags & ~VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
        if (h.flags != 0) {
            EXPECT_TRUE(has(takes_, VIRTIO_NET_F_GUEST_CSUM));
            EXPECT_TRUE(s.unfinished);
        }
        if (s.mss != 0 && whole(s)) {
            auto want = gso(s.shape, s.mss);
            if (!s.shape.udp && (s.shape.tcp_flags & 0x80) != 0)
                want.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
            EXPECT_TRUE(same(h, want));
        } else {
            EXPECT_EQ(h.gso_type, VIRTIO_NET_HDR_GSO_NONE);
            EXPECT_EQ(h.gso_size, 0);
        }
    }

    std::mt19937& random_;
    Pool pool_;
    uint64_t sends_ = 0, takes_ = 0;
    uint32_t buffer_ = 0;  // bytes of the receiver's
    unsigned slots_ = 0;   // how many it has
    unsigned left_ = 0;    // of them, in this exchange
    unsigned max_pieces_ = 0;
    std::optional<OffloadRig> from_, to_;
};

TEST(GuestToGuest, random_packets_arrive_right_whatever_each_has_accepted) {
    const unsigned seed = choose_seed();
    SCOPED_TRACE(fmt::format("VIOMMU_SEED={}", seed));
    std::printf("seed %u\n", seed);
    std::mt19937 random(seed);
    uint64_t cut = 0, packets = 0;
    for (unsigned run = 0; run < 150; ++run) {
        SCOPED_TRACE(fmt::format("run {}", run));
        Guests guests(random);
        for (unsigned i = 0; i < 20; ++i) {
            guests.exchange();
            if (HasFailure()) return;
        }
        cut += guests.cut();
        packets += guests.packets();
    }
    // It would say nothing if nothing had happened.
    EXPECT_GT(cut, 300u);
    EXPECT_GT(packets, 10000u);
}

}  // namespace
}  // namespace viommu::net::test
