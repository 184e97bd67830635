// SPDX-License-Identifier: BSD-3-Clause
/// Two ports of four pairs over two lcores, and flows of numbered packets between them.
#pragma once

#include <array>

#include "packets.hh"
#include "two_ports.hh"

namespace viommu::e2e {

inline constexpr uint16_t kPairs = 4;

/// The control queue of both ports is ours, or not there.
inline std::string many_pairs(bool control_queue) {
    return fmt::format(R"(
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
  control_queue = {0}
  [[guest.net]]
  name = "net1"
  socket = "@DIR@/net1.sock"
  endpoint = "0000:00:05.0"
  mac = "52:54:00:00:00:02"
  queue_pairs = 4
  control_queue = {0}
)",
                       control_queue);
}

/// What of a flow has been sent and has come: numbers.
struct Numbers {
    uint32_t sent = 0;
    uint32_t received = 0;
    struct Arrival {
        uint16_t pair;
        uint32_t number;
    };
    std::vector<Arrival> arrivals{};  ///< in the order in which they were read
    std::vector<bool> seen{};
    uint32_t late = 0;  ///< that came after a later one
    uint32_t next = 0;
};

/// Flows go from port 0 to port 1; flow f is sent by pair f % kPairs.
template <const auto& kConfig>
class ManyPairs : public SuiteDaemon<kConfig> {
  protected:
    using Base = SuiteDaemon<kConfig>;

    /// Both ports' drivers need `features`.
    void boot(uint64_t features, guest::Vmm vmm = guest::Vmm::kCloudHypervisor) {
        auto o = two_ports(*Base::daemon);
        o.vmm = vmm;
        for (auto& port : o.ports) {
            port.net.pairs = kPairs;
            guest::require(port.net, features);
        }
        auto made = guest::Guest::create(o);
        ASSERT_TRUE(made) << made.error().message;
        guest = std::move(*made);
    }
    guest::NetDriver& sender() { return guest->port(0); }
    guest::NetDriver& receiver() { return guest->port(1); }

    static guest::Flow flow_of(uint16_t f) {
        return {.source_port = uint16_t(2000 + 7 * f), .target_port = 443};
    }
    /// A frame by the sender's pair `pair`. False: there is no room.
    bool send(std::span<const std::byte> frame, uint16_t pair) {
        const auto sent = sender().tx(pair).transmit(1, [&](std::span<std::byte> room) {
            std::copy(frame.begin(), frame.end(), room.begin());
            return uint32_t(frame.size());
        });
        EXPECT_TRUE(sent) << sent.error().message;
        return sent && *sent == 1;
    }
    /// A packet of flow `f`.
    bool send(uint16_t f) {
        if (!send(make_frame(flow_of(f), flows[f].sent, std::array<std::byte, 32>{}),
                  uint16_t(f % kPairs)))
            return false;
        ++flows[f].sent;
        flows[f].seen.push_back(false);
        return true;
    }
    /// Whatever has come, by any pair.
    unsigned receive() {
        unsigned n = 0;
        for (uint16_t pair = 0; pair < kPairs; ++pair) {
            n += receive(pair);
            EXPECT_TRUE(sender().tx(pair).reap());
        }
        return n;
    }
    unsigned receive(uint16_t pair) {
        const auto got = receiver().rx(pair).receive(
            32, [&](std::span<const std::byte> packet) { take(packet, pair); });
        EXPECT_TRUE(got) << got.error().message;
        return got ? *got : 0;
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
            n.arrivals.push_back({pair, read.tcp_sequence});
            return;
        }
        FAIL() << "a packet of no flow, of " << packet.size() << " bytes";
    }
    uint32_t on_the_way() const {
        uint32_t n = 0;
        for (const auto& f : flows) n += f.sent - f.received;
        return n;
    }
    /// `count` packets of every flow. Ends when all are sent.
    void send_all(uint32_t count) {
        guest::Patience patience(guest::Milliseconds(10000));
        for (uint32_t i = 0; i < count;) {
            if (on_the_way() + flows.size() > 64) {
                const bool moved = receive() != 0;
                if (testing::Test::HasFatalFailure()) return;
                if (moved) patience.renew();
                ASSERT_TRUE(moved || patience.wait()) << on_the_way() << " do not arrive";
                continue;
            }
            for (uint16_t f = 0; f < flows.size(); ++f)
                while (!send(f)) {
                    receive();
                    ASSERT_TRUE(patience.wait()) << "packets of flow " << f << " are not taken";
                }
            ++i;
        }
    }
    /// The same. Ends when all have come.
    void pass(uint32_t count) {
        send_all(count);
        guest::Patience patience(guest::Milliseconds(10000));
        while (on_the_way() != 0) {
            if (testing::Test::HasFatalFailure()) return;
            const bool moved = receive() != 0;
            if (moved) patience.renew();
            ASSERT_TRUE(moved || patience.wait()) << on_the_way() << " do not arrive";
        }
    }
    /// From here on only.
    void forget() {
        for (auto& f : flows) f.arrivals.clear(), f.late = 0;
    }
    /// Since then each flow came in order, and each packet by its pair of `pairs`.
    void expect_pairs(uint16_t pairs) {
        for (uint16_t f = 0; f < flows.size(); ++f) {
            EXPECT_EQ(flows[f].late, 0u) << "flow " << f;
            for (const auto& a : flows[f].arrivals) ASSERT_EQ(a.pair, f % kPairs % pairs);
        }
    }

    std::unique_ptr<guest::Guest> guest;
    std::vector<Numbers> flows{8};
};

}  // namespace viommu::e2e
