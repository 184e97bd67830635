// SPDX-License-Identifier: BSD-3-Clause
#include <deque>

#include "net_rig.hh"

namespace viommu::net::test {
namespace {

struct Mode {
    const char* name;
    bool dynamic;  ///< every buffer is mapped for itself and unmapped when it comes back
    bool mergeable;
    uint64_t ring = 0;  ///< features
};

/// What the guest sends comes back to it: random frames through chains of random shapes, whose
/// pieces lie on pages of their own.
class Loopback {
  public:
    Loopback(const Pool& pool, std::mt19937& random, Mode mode)
        : random_(random),
          mode_(mode),
          rig_(pool, {.size = size(random, mode),
                      .acked = kAcked | mode.ring | (mode.mergeable ? kMergeable : 0),
                      .start = uint16_t(random()),
                      .ring_skew = random() % 2 != 0,
                      .seed = unsigned(random())}) {}

    ~Loopback() {
        for (rte_mbuf* m : carried_) rte_pktmbuf_free(m);
    }

    void run(unsigned frames) {
        unsigned made = 0;
        for (unsigned idle = 0; arrived_ < frames; ++idle) {
            ASSERT_LT(idle, 1000u) << "nothing moves";
            while (made < frames && pick(3) != 0 && send(made)) ++made;
            while (pick(4) != 0 && post()) {
            }
            rig_.tx->publish();
            rig_.rx->publish();
            if (carry()) idle = 0;
            collect();
            if (testing::Test::HasFatalFailure()) return;
        }
        EXPECT_EQ(rig_.from().packets.was(), frames);
        EXPECT_EQ(rig_.to().packets.was(), frames);
        EXPECT_TRUE(rig_.take_faults().empty());
        EXPECT_TRUE(carried_.empty());
    }

  private:
    // The guest must be able to provide for its largest frame, whatever the shapes: this many
    // receive buffers of at most 8 descriptors, and of 500 bytes at least when they are merged.
    static constexpr unsigned kPosted = 16, kEnoughLg2 = 7;

    struct Buffer {
        std::vector<Desc> pieces;
        uint64_t table = 0;  // when indirect
        uint32_t bytes = 0;
    };

    static uint32_t size(std::mt19937& random, const Mode& mode) {
        const uint32_t lg2 = (mode.mergeable ? kEnoughLg2 : 3) + random() % 4;
        return (1u << lg2) + ((mode.ring & kPacked) != 0 ? random() % (1u << lg2) : 0);
    }
    uint32_t pick(uint32_t below) { return random_() % below; }

    uint64_t place(uint32_t bytes) {
        if (!mode_.dynamic) return rig_.data(bytes);
        const uint64_t at = next_iova_ + pick(kPage);
        rig_.map_range(at, bytes);
        next_iova_ = (at + bytes + 2 * kPage) / kPage * kPage;  // an unmapped page in between
        return at;
    }
    void release(uint64_t at, uint32_t bytes) {
        if (!mode_.dynamic) return;
        for (uint64_t p = at / kPage * kPage; p < at + bytes; p += kPage) {
            const size_t page = rig_.page_of(p);
            rig_.unmap_page(p);
            rig_.space.unmap(p);
            rig_.give_page(page);
        }
    }

    /// A buffer in random pieces, offered to a queue; nothing when the queue is full.
    std::optional<std::pair<uint16_t, Buffer>> offer(Driver& driver, uint32_t bytes, uint16_t flags,
                                                     const Bytes* content) {
        const bool indirect = pick(3) == 0;
        const uint32_t most = indirect ? std::min(rig_.options.size, 8u)
                                       : uint32_t(std::min<size_t>(driver.free_descriptors(), 8));
        if (driver.free_descriptors() == 0) return std::nullopt;
        const uint32_t count = 1 + pick(std::min(most, bytes));
        Buffer b;
        b.bytes = bytes;
        for (uint32_t i = 0, done = 0; i < count; ++i) {
            const uint32_t rest = bytes - done;
            const uint32_t len = i + 1 == count ? rest : 1 + pick(rest - (count - i - 1));
            const uint64_t at = place(len);
            if (content != nullptr) rig_.space.write(at, content->data() + done, len);
            b.pieces.push_back({at, len, flags, 0});
            done += len;
        }
        if (!indirect) return std::pair{*driver.chain(b.pieces), b};
        b.table = place(16 * count);
        return std::pair{*driver.indirect(b.table, b.pieces), b};
    }
    void release(const Buffer& b) {
        for (const Desc& d : b.pieces) release(d.addr, d.len);
        if (b.table != 0) release(b.table, uint32_t(16 * b.pieces.size()));
    }

    bool send(unsigned salt) {
        if (sent_.size() >= 16) return false;
        const Bytes f = frame(14 + pick(pick(8) == 0 ? 6000 : 1501), salt);
        Bytes content = frame(kHeader, salt + 1);
        content.insert(content.end(), f.begin(), f.end());
        auto o = offer(*rig_.tx, uint32_t(content.size()), 0, &content);
        if (!o) return false;
        sent_.push_back(std::move(*o));
        expected_.push_back(f);
        return true;
    }
    bool post() {
        if (posted_.size() >= kPosted) return false;
        const uint32_t bytes = mode_.mergeable ? 500 + pick(2500) : kHeader + 6100;
        auto o = offer(*rig_.rx, bytes, virtq::test::kWrite, nullptr);
        if (o) posted_.push_back(std::move(*o));
        return o.has_value();
    }

    /// What the port gives, it gets back; what it does not take is offered again.
    bool carry() {
        rte_mbuf* got[NetPort::kBurst];
        const unsigned n = rig_.port->from_guest(0, std::span(got, 1 + pick(NetPort::kBurst)));
        carried_.insert(carried_.end(), got, got + n);
        std::vector<rte_mbuf*> out(carried_.begin(), carried_.end());
        const unsigned taken = rig_.port->to_guest(0, out);
        carried_.erase(carried_.begin(), carried_.begin() + taken);
        return n != 0 || taken != 0;
    }

    void collect() {
        while (const auto used = rig_.tx->pop()) {
            ASSERT_EQ(used->id, sent_.front().first);
            ASSERT_EQ(used->len, 0u);
            release(sent_.front().second);
            sent_.pop_front();
        }
        while (const auto used = rig_.rx->pop()) {
            ASSERT_EQ(used->id, posted_.front().first);
            const Buffer b = posted_.front().second;
            posted_.pop_front();
            ASSERT_LE(used->len, b.bytes);
            ASSERT_GT(used->len, 0u);
            Bytes part;
            for (const Desc& d : b.pieces) {
                const Bytes piece =
                    rig_.read(d.addr, std::min<size_t>(d.len, used->len - part.size()));
                part.insert(part.end(), piece.begin(), piece.end());
            }
            release(b);
            accept(part);
            if (testing::Test::HasFatalFailure()) return;
        }
    }
    /// As a driver puts a frame together.
    void accept(const Bytes& part) {
        if (buffers_left_ == 0) {
            ASSERT_GE(part.size(), kHeader);
            for (int i = 0; i < 10; ++i) ASSERT_EQ(part[size_t(i)], std::byte{0});
            buffers_left_ = unsigned(part[10]) | unsigned(part[11]) << 8;
            ASSERT_GT(buffers_left_, 0u);
            if (!mode_.mergeable) {
                ASSERT_EQ(buffers_left_, 1u);
            }
            frame_.assign(part.begin() + kHeader, part.end());
        } else {
            frame_.insert(frame_.end(), part.begin(), part.end());
        }
        if (--buffers_left_ > 0) return;
        ASSERT_FALSE(expected_.empty());
        ASSERT_EQ(frame_, expected_.front());
        expected_.pop_front();
        ++arrived_;
    }

    std::mt19937& random_;
    const Mode mode_;
    NetRig rig_;
    uint64_t next_iova_ = 0x700000000;
    std::deque<std::pair<uint16_t, Buffer>> sent_, posted_;
    std::deque<Bytes> expected_;
    std::deque<rte_mbuf*> carried_;
    Bytes frame_;
    unsigned buffers_left_ = 0;
    unsigned arrived_ = 0;
};

class LoopbackRandom : public testing::TestWithParam<Mode> {};

TEST_P(LoopbackRandom, every_frame_comes_back_whole_and_in_order) {
    const unsigned seed = choose_seed();
    SCOPED_TRACE(fmt::format("VIOMMU_SEED={}", seed));
    std::printf("seed %u\n", seed);
    std::mt19937 random(seed);
    for (unsigned run = 0; run < 6; ++run) {
        Pool pool(1023, uint16_t(64 + random() % 2000));
        Loopback loopback(pool, random, GetParam());
        loopback.run(200);
        if (HasFatalFailure()) return;
    }
}

INSTANTIATE_TEST_SUITE_P(Modes, LoopbackRandom,
                         testing::Values(Mode{"static_single", false, false},
                                         Mode{"static_merged", false, true},
                                         Mode{"dynamic_single", true, false},
                                         Mode{"dynamic_merged", true, true},
                                         Mode{"events", true, true, kEvents},
                                         Mode{"packed_single", false, false, kPacked},
                                         Mode{"packed_merged", true, true, kPacked},
                                         Mode{"packed_events_in_order", true, true,
                                              kPacked | kEvents | kInOrder}),
                         [](const auto& i) { return std::string(i.param.name); });

}  // namespace
}  // namespace viommu::net::test
