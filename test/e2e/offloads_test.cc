// SPDX-License-Identifier: BSD-3-Clause
/// What a guest leaves undone, of checksums and of cutting large packets: handed on to a guest that
/// takes it, done for any other and for devices. Every frame is looked at as a kernel would.
#include "cargo.hh"
#include "pump.hh"
#include "suite_daemon.hh"
#include "two_guests.hh"

namespace viommu::e2e {
namespace {

using namespace guest;
using namespace wire;

/// And a device of DPDK's: a net_ring gives back what it is sent.
const std::string kPaths = std::string(kTwoGuests) + R"(
  [[guest.net]]
  name = "net3"
  socket = "@DIR@/vm0-net3.sock"
  endpoint = "0000:00:07.0"
  peer = "vdev:net_ring0"
  lcore = 2
)";

constexpr uint64_t kLeaves = bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4) |
                             bit(VIRTIO_NET_F_HOST_TSO6) | bit(VIRTIO_NET_F_HOST_ECN) |
                             bit(VIRTIO_NET_F_HOST_USO);
constexpr uint64_t kTakesSums = bit(VIRTIO_NET_F_GUEST_CSUM);
constexpr uint64_t kTakesTso4 = kTakesSums | bit(VIRTIO_NET_F_GUEST_TSO4);
constexpr uint64_t kTakesAll =
    kTakesTso4 | bit(VIRTIO_NET_F_GUEST_TSO6) | bit(VIRTIO_NET_F_GUEST_ECN) |
    bit(VIRTIO_NET_F_GUEST_USO4) | bit(VIRTIO_NET_F_GUEST_USO6);

struct Way {
    const char* name;
    bool device;
    bool packed;
    bool mergeable;
    uint64_t takes;
};
std::ostream& operator<<(std::ostream& out, const Way& way) { return out << way.name; }

class Offloads : public SuiteDaemon<kPaths> {
  protected:
    PortOptions port(const Way& way, const std::string& name, EndpointId endpoint) const {
        PortOptions p{daemon->path(name + ".sock"), endpoint};
        p.net.tx_buffer_bytes = 65536 + 64;
        p.net.tx_segment_bytes = 16384;
        require(p.net, kLeaves | way.takes);
        if (way.packed) require(p.net, bit(VIRTIO_F_RING_PACKED));
        p.net.max_buffers = 256;
        if (way.mergeable) return p;
        p.net.features &= ~bit(VIRTIO_NET_F_MRG_RXBUF);
        p.net.buffer_bytes = 65536 + 64;
        p.net.rx_segment_bytes = 32768;
        p.net.rx_queue_size = 1024;
        return p;
    }
    void boot(const std::string& name, PortOptions port) {
        GuestOptions o;
        o.iommu_socket = daemon->path(name + ".sock");
        o.ports = {std::move(port)};
        o.banks = {{Gpa{0}, uint64_t{128} << 20}};
        auto guest = Guest::create(o);
        ASSERT_TRUE(guest) << guest.error().message;
        guests.push_back(std::move(*guest));
    }
    void boot(const Way& way) {
        if (way.device) return boot("vm0", port(way, "vm0-net3", 0x38));
        boot("vm0", port(way, "vm0-net2", 0x30));
        if (!HasFatalFailure()) boot("vm1", port(way, "vm1-net0", 0x20));
    }
    void remember_counters() {
        const auto counters = daemon->counters();
        ASSERT_TRUE(counters) << counters.error().message;
        before = *counters;
    }
    void read_counters() {
        const auto counters = daemon->counters();
        ASSERT_TRUE(counters) << counters.error().message;
        now = *counters;
    }
    uint64_t grown(const std::string& name) {
        EXPECT_TRUE(now.contains(name)) << name;
        return now[name] - before[name];
    }

    std::vector<std::unique_ptr<Guest>> guests;
    std::map<std::string, uint64_t> before, now;
    std::mt19937 rng{1};
};

class OffloadWays : public Offloads, public testing::WithParamInterface<Way> {
  protected:
    /// Every kind of connection that there are offloads for.
    std::vector<Cargo> cargoes() const {
        constexpr uint8_t kPshAck = 0x18, kCwrAck = 0x90;
        std::vector<Cargo> all;
        const auto add = [&](bool ipv6, bool udp, uint8_t flags) {
            const Flow flow{.ipv6 = ipv6,
                            .udp = udp,
                            .source_port = uint16_t(2000 + all.size()),
                            .tcp_flags = flags};
            all.emplace_back(flow, GetParam().takes, GetParam().device);
        };
        for (const bool ipv6 : {false, true}) {
            add(ipv6, true, 0);
            add(ipv6, false, kPshAck);
            add(ipv6, false, kCwrAck);
        }
        return all;
    }
    Load next(Cargo& cargo) {
        const Flow& flow = cargo.flow();
        // What the 16 bits of a length in an IP header can say, and virtio's of a packet.
        const uint32_t most = 65535 - flow.payload_at();
        switch (rng() % 4) {
            case 0: return cargo.send(1 + rng() % 1400, 0, false);
            case 1: return cargo.send(1 + rng() % (rng() % 2 == 0 ? 9000 : 1400), 0, true);
            default: break;
        }
        constexpr uint16_t kSizes[] = {100, 536, 1448, 1448, 8948};
        const uint16_t gso = kSizes[rng() % std::size(kSizes)];
        const uint32_t least = 1 + rng() % gso;  // also one piece, which is not large
        // Pieces enough for the receiver's buffers, and not more.
        const uint32_t bytes = rng() % 8 == 0
                                   ? std::min(most, 150u * gso)
                                   : least + rng() % std::min(most - least, 40u * gso);
        return cargo.send(bytes, gso, true);
    }
    /// Buffers of the receiver, if nothing of it is left whole.
    static uint32_t buffers_for(const Load& load) {
        const uint32_t in_piece = uint32_t(load.frame.size()) / load.pieces / 1900 + 1;
        return load.pieces * in_piece + uint32_t(load.frame.size()) / 1900 + 1;
    }
    static bool send(NetDriver& from, const Load& load) {
        const auto sent = from.tx().transmit(1, [&](virtio_net_hdr& header, auto room) {
            header = load.header;
            std::ranges::copy(load.frame, room.begin());
            return uint32_t(load.frame.size());
        });
        return sent && *sent == 1;
    }
    /// What has come to `to`, in `all`.
    unsigned receive(NetDriver& to, std::span<Cargo> all) {
        const auto n = to.rx().receive(32, [&](const virtio_net_hdr& header, auto bytes) {
            ++arrived;
            for (Cargo& cargo : all) {
                const auto& f = cargo.flow();
                if (!read_frame(f, bytes).trouble.empty()) continue;
                ASSERT_EQ(cargo.receive(header, bytes), "")
                    << (f.udp ? "UDP" : "TCP") << (f.ipv6 ? " in IPv6" : " in IPv4") << ", flags "
                    << unsigned(f.tcp_flags) << ", frame " << arrived;
                return;
            }
            FAIL() << "a frame of " << bytes.size() << " bytes, of no connection";
        });
        EXPECT_TRUE(n) << n.error().message;
        return n ? *n : 0;
    }
    /// Until no more than `left` frames have not come.
    void wait_until(size_t left, NetDriver& to, std::span<Cargo> all) {
        const auto due = [&] {
            size_t n = 0;
            for (const Cargo& cargo : all) n += cargo.due();
            return n;
        };
        Patience patience(Milliseconds(10000));
        while (due() > left) {
            const unsigned n = receive(to, all);
            if (HasFatalFailure()) return;
            if (n != 0) patience.renew();
            ASSERT_TRUE(n != 0 || patience.wait()) << "nothing comes; " << arrived << " came";
        }
    }
    /// `count` frames of all kinds, none of which is lost.
    void pass(NetDriver& from, NetDriver& to, unsigned count) {
        auto all = cargoes();
        const uint32_t window = to.rx_buffers() * 3u / 4;
        uint32_t on_the_way = 0;
        for (unsigned i = 0; i < count; ++i) {
            const Load load = next(all[rng() % all.size()]);
            sent_large += load.is_large();
            on_the_way += buffers_for(load);
            if (on_the_way > window) {
                wait_until(1, to, all);
                if (HasFatalFailure()) return;
                on_the_way = buffers_for(load);
            }
            ASSERT_TRUE(send(from, load));
        }
        wait_until(0, to, all);
        // Whatever comes now is one too many.
        const auto more = to.receive(Milliseconds(20));
        ASSERT_TRUE(more && !*more);
    }

    uint64_t arrived = 0, sent_large = 0;
};

TEST_P(OffloadWays, frame_is_finished_for_who_does_not_finish_it_himself) {
    constexpr unsigned kFrames = kSanitized ? 150 : 600;
    boot(GetParam());
    ASSERT_FALSE(HasFatalFailure());
    const bool device = GetParam().device;
    NetDriver &a = guests.front()->port(0), &b = guests.back()->port(0);
    const std::string name_a = device ? "net.vm0/net3" : "net.vm0/net2", name_b = "net.vm1/net0";
    for (const bool back : {false, true}) {
        if (back && device) break;
        remember_counters();
        arrived = sent_large = 0;
        pass(back ? b : a, back ? a : b, kFrames);
        ASSERT_FALSE(HasFatalFailure());
        read_counters();
        const auto& from = back ? name_b : name_a;
        const auto& to = back || device ? name_a : name_b;
        EXPECT_EQ(grown(from + ".from_guest.packets"), kFrames);
        EXPECT_EQ(grown(from + ".to_peer.packets"), kFrames);
        EXPECT_EQ(grown(to + ".to_guest.packets"), arrived);
        EXPECT_EQ(drops(now), drops(before));
        const uint64_t cut =
            grown(device ? name_a + ".device.segmented" : to + ".to_guest.segmented");
        // Large ones arrive as they are exactly where the guest takes them.
        if (device || (GetParam().takes & ~kTakesSums) == 0)
            EXPECT_EQ(cut, sent_large);
        else if (GetParam().takes == kTakesAll)
            EXPECT_EQ(cut, 0u);
        else
            EXPECT_TRUE(cut > 0 && cut < sent_large) << cut << " of " << sent_large;
        EXPECT_GT(sent_large, kFrames / 3);
    }
    for (auto& guest : guests) {
        const auto down = guest->shut_down();
        EXPECT_TRUE(down) << down.error().message;
    }
}

INSTANTIATE_TEST_SUITE_P(
    All, OffloadWays,
    testing::Values(Way{"guest_takes_all_split", false, false, true, kTakesAll},
                    Way{"guest_takes_all_packed_big_buffers", false, true, false, kTakesAll},
                    Way{"guest_takes_sums_packed", false, true, true, kTakesSums},
                    Way{"guest_takes_sums_split_big_buffers", false, false, false, kTakesSums},
                    Way{"guest_takes_tso4_split", false, false, true, kTakesTso4},
                    Way{"guest_takes_nothing_split", false, false, true, 0},
                    Way{"guest_takes_nothing_packed_big_buffers", false, true, false, 0},
                    Way{"device_and_takes_all_split", true, false, true, kTakesAll},
                    Way{"device_and_takes_nothing_packed", true, true, true, 0}),
    [](const auto& info) { return std::string(info.param.name); });

/// From vm0 to vm1, which takes nothing.
class FinishedForGuest : public Offloads {
  protected:
    static constexpr unsigned kBuffers = 16;

    void SetUp() override {
        constexpr Way kWay{"", false, false, true, 0};
        boot("vm0", port(kWay, "vm0-net2", 0x30));
        if (HasFatalFailure()) return;
        auto to = port(kWay, "vm1-net0", 0x20);
        to.net.max_buffers = kBuffers;
        boot("vm1", to);
        if (!HasFatalFailure()) remember_counters();
    }
    void send(const Load& load) {
        auto& from = guests[0]->port(0);
        const auto sent = from.tx().transmit(1, [&](virtio_net_hdr& header, auto room) {
            header = load.header;
            std::ranges::copy(load.frame, room.begin());
            return uint32_t(load.frame.size());
        });
        ASSERT_TRUE(sent && *sent == 1);
        ASSERT_TRUE(from.drain(Milliseconds(5000)));
    }
    /// How many frames come until none comes any more; all of `cargo`'s, and right.
    unsigned receive(Cargo& cargo) {
        unsigned n = 0;
        Patience patience(Milliseconds(200));
        do {
            const auto got = guests[1]->port(0).rx().receive(
                32, [&](const virtio_net_hdr& header, auto bytes) {
                    ++n;
                    EXPECT_EQ(cargo.receive(header, bytes), "");
                });
            EXPECT_TRUE(got);
            if (got && *got != 0) patience.renew();
        } while (patience.wait());
        return n;
    }
    const Flow flow{};
};

TEST_F(FinishedForGuest, buffers_that_run_out_in_a_large_frame_cost_the_rest_of_it) {
    Cargo cargo(flow, 0, false);
    for (int i = 0; i < 2; ++i) send(cargo.send(10000, 1000, true));
    Cargo later(flow, 0, false);
    send(later.send(10000, 1000, true));
    EXPECT_EQ(receive(cargo), kBuffers);
    read_counters();
    EXPECT_EQ(grown("net.vm0/net2.from_guest.packets"), 3u);
    EXPECT_EQ(grown("net.vm1/net0.to_guest.packets"), kBuffers);
    EXPECT_EQ(grown("net.vm1/net0.to_guest.segmented"), 2u);
    EXPECT_EQ(grown("net.vm1/net0.to_guest.drop_rest"), 1u);
    EXPECT_EQ(grown("net.vm0/net2.to_peer.packets"), 2u) << "and the third was not taken";
    EXPECT_EQ(grown("net.vm0/net2.to_peer.drop_full"), 1u);
    Cargo next(flow, 0, false);
    send(next.send(8000, 1000, true));
    EXPECT_EQ(receive(next), 8u) << "the queue goes on";
}

TEST_F(FinishedForGuest, header_that_lies_costs_its_packet_and_no_other) {
    const std::vector<std::byte> payload(3000);
    using Lie = void (*)(virtio_net_hdr&);
    const Lie lies[] = {
        [](auto& h) { h.flags = 0; },                                    // GSO needs a checksum
        [](auto& h) { h.gso_size = 0; },
        [](auto& h) { h.gso_type = VIRTIO_NET_HDR_GSO_UDP; },            // not offered
        [](auto& h) { h.gso_type = VIRTIO_NET_HDR_GSO_TCPV6; },          // the frame is IPv4
        [](auto& h) { h.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4; },         // the frame is TCP
        [](auto& h) { h.gso_type = 0x42; },
        [](auto& h) { h.csum_start = 0xffff; },
        [](auto& h) { h.csum_offset = 0xffff; },
        [](auto& h) { h.csum_start = uint16_t(h.csum_start + 2); },
        [](auto& h) { h.csum_start = 3053; h.gso_type = 0; },            // its end is beyond
    };
    Cargo cargo(flow, 0, false);
    unsigned arrived = 0;
    for (const Lie& lie : lies) {
        Load load;
        load.frame = make_giant_frame(flow, 0, payload, 1000, load.header);
        lie(load.header);
        send(load);
        send(cargo.send(3000, 1000, true));
        arrived += receive(cargo);
    }
    EXPECT_EQ(arrived, 3 * std::size(lies));
    read_counters();
    EXPECT_EQ(grown("net.vm0/net2.from_guest.drop_malformed"), std::size(lies));
    EXPECT_EQ(grown("net.vm0/net2.from_guest.packets"), std::size(lies));
    EXPECT_EQ(drops(now) - drops(before), std::size(lies));
}

TEST_F(FinishedForGuest, hints_in_the_header_are_not_believed) {
    Cargo cargo(flow, 0, false);
    for (const uint16_t lie : {0, 1, 60, 0xffff}) {
        auto load = cargo.send(3000, 1000, true);
        load.header.hdr_len = lie;
        load.header.num_buffers = lie;
        load.header.flags |= VIRTIO_NET_HDR_F_DATA_VALID | 0xf8;
        send(load);
        EXPECT_EQ(receive(cargo), 3u);
    }
}

}  // namespace
}  // namespace viommu::e2e
