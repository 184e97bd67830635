// SPDX-License-Identifier: BSD-3-Clause
/// Several pairs of queues over two lcores.

#include <array>

#include "packets.hh"
#include "two_ports.hh"

namespace viommu::e2e {
namespace {

using namespace guest;

constexpr uint16_t kPairs = 4;

/// Pairs of both ports over two lcores.
constexpr const char* kManyPairs = R"(
poll = "adaptive"
[[guest]]
name = "vm0"
socket = "@DIR@/iommu.sock"
lcore = 1
bypass = false
  [[guest.net]]
  name = "net0"
  socket = "@DIR@/net0.sock"
  endpoint = "0000:00:04.0"
  mac = "52:54:00:00:00:01"
  peer = "guest:vm0/net1"
  lcore = [2, 3]
  queue_pairs = 4
  [[guest.net]]
  name = "net1"
  socket = "@DIR@/net1.sock"
  endpoint = "0000:00:05.0"
  queue_pairs = 4
)";

/// What of a flow has been sent and has come: numbers.
struct Numbers {
    uint32_t sent = 0;
    uint32_t received = 0;
    std::vector<uint16_t> pair_of{};  ///< that each came by, in the order of coming
    std::vector<bool> seen{};
    uint32_t late = 0;  ///< that came after a later one
    uint32_t next = 0;
};

class MultiQueue : public SuiteDaemon<kManyPairs>, public testing::WithParamInterface<bool> {
  protected:
    void boot() {
        auto o = two_ports(*daemon);
        for (auto& port : o.ports) {
            port.net.pairs = kPairs;
            require(port.net, packed());
        }
        auto made = Guest::create(o);
        ASSERT_TRUE(made) << made.error().message;
        guest = std::move(*made);
    }
    static uint64_t packed() { return GetParam() ? bit(wire::VIRTIO_F_RING_PACKED) : 0; }
    NetDriver& sender() { return guest->port(0); }
    NetDriver& receiver() { return guest->port(1); }

    static Flow flow_of(uint16_t f) {
        return {.source_port = uint16_t(2000 + 7 * f), .target_port = 443};
    }
    /// A packet of flow `f` by pair `pair`. False: there is no room.
    bool send(uint16_t f, uint16_t pair) {
        const auto frame = make_frame(flow_of(f), flows[f].sent, std::array<std::byte, 32>{});
        const auto sent = sender().tx(pair).transmit(1, [&](std::span<std::byte> room) {
            std::copy(frame.begin(), frame.end(), room.begin());
            return uint32_t(frame.size());
        });
        EXPECT_TRUE(sent) << sent.error().message;
        if (!sent || *sent == 0) return false;
        ++flows[f].sent;
        flows[f].seen.push_back(false);
        return true;
    }
    /// Whatever has come, by any pair.
    unsigned receive() {
        unsigned n = 0;
        for (uint16_t pair = 0; pair < kPairs; ++pair) {
            const auto got = receiver().rx(pair).receive(
                32, [&](std::span<const std::byte> packet) { take(packet, pair); });
            EXPECT_TRUE(got) << got.error().message;
            n += got ? *got : 0;
            EXPECT_TRUE(sender().tx(pair).reap());
        }
        return n;
    }
    void take(std::span<const std::byte> packet, uint16_t pair) {
        for (uint16_t f = 0; f < flows.size(); ++f) {
            const auto read = read_frame(flow_of(f), packet);
            if (!read.trouble.empty()) continue;
            Numbers& n = flows[f];
            EXPECT_TRUE(read.checksum_good);
            ASSERT_LT(read.tcp_sequence, n.sent);
            ASSERT_FALSE(n.seen[read.tcp_sequence]) << "it came twice";
            n.seen[read.tcp_sequence] = true;
            n.late += read.tcp_sequence < n.next;
            n.next = std::max(n.next, read.tcp_sequence + 1);
            ++n.received;
            n.pair_of.push_back(pair);
            return;
        }
        FAIL() << "a packet of no flow, of " << packet.size() << " bytes";
    }
    uint32_t on_the_way() const {
        uint32_t n = 0;
        for (const auto& f : flows) n += f.sent - f.received;
        return n;
    }
    /// `count` packets of every flow, flow f by the sender's pair f % kPairs. Ends when all have
    /// come.
    void pass(uint32_t count) {
        Patience patience(Milliseconds(10000));
        for (uint32_t i = 0; i < count;) {
            if (on_the_way() + flows.size() > 64) {
                const bool moved = receive() != 0;
                if (HasFatalFailure()) return;
                if (moved) patience.renew();
                ASSERT_TRUE(moved || patience.wait()) << on_the_way() << " do not arrive";
                continue;
            }
            for (uint16_t f = 0; f < flows.size(); ++f)
                while (!send(f, uint16_t(f % kPairs))) {
                    receive();
                    ASSERT_TRUE(patience.wait()) << "packets of flow " << f << " are not taken";
                }
            ++i;
        }
        while (on_the_way() != 0) {
            const bool moved = receive() != 0;
            if (HasFatalFailure()) return;
            if (moved) patience.renew();
            ASSERT_TRUE(moved || patience.wait()) << on_the_way() << " do not arrive";
        }
    }
    /// From here on only.
    void forget() {
        for (auto& f : flows) f.pair_of.clear(), f.late = 0;
    }

    std::unique_ptr<Guest> guest;
    std::vector<Numbers> flows{8};
};

TEST_P(MultiQueue, pairs_that_run_are_used_where_the_guest_has_no_controlq) {
    boot();
    ASSERT_FALSE(HasFatalFailure());
    for (int i = 0; i < 5; ++i) {
        forget();
        pass(300);
        ASSERT_FALSE(HasFatalFailure());
        for (uint16_t f = 0; f < flows.size(); ++f) {
            EXPECT_EQ(flows[f].late, 0u);
            for (const uint16_t pair : flows[f].pair_of) ASSERT_EQ(pair, f % kPairs);
        }
        const auto again = guest->port(i % 2).reconnect();
        ASSERT_TRUE(again) << again.error().message;
    }
    const auto down = guest->shut_down();
    EXPECT_TRUE(down) << down.error().message;
}

INSTANTIATE_TEST_SUITE_P(All, MultiQueue, testing::Bool(),
                         [](const auto& info) { return info.param ? "packed" : "split"; });

}  // namespace
}  // namespace viommu::e2e
