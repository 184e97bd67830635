// SPDX-License-Identifier: BSD-3-Clause
/// Two ports whose control queues are the daemon's, and a guest that sends commands by them.
#pragma once

#include "many_pairs.hh"

namespace viommu::e2e {

inline constexpr uint64_t kCommands =
    guest::bit(wire::VIRTIO_NET_F_CTRL_VQ) | guest::bit(wire::VIRTIO_NET_F_CTRL_RX) |
    guest::bit(wire::VIRTIO_NET_F_CTRL_RX_EXTRA) | guest::bit(wire::VIRTIO_NET_F_CTRL_VLAN) |
    guest::bit(wire::VIRTIO_NET_F_CTRL_MAC_ADDR);
inline constexpr guest::Milliseconds kSoon{5000};

using Bytes = std::vector<std::byte>;
inline Bytes bytes(std::initializer_list<unsigned> list) {
    Bytes b;
    for (const unsigned v : list) b.push_back(std::byte(v));
    return b;
}
inline Bytes operator+(Bytes a, const Bytes& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}
inline Bytes le(uint64_t v, int n) {
    Bytes b;
    for (int i = 0; i < n; ++i) b.push_back(std::byte(v >> 8 * i));
    return b;
}
inline const Bytes kOwn = bytes({0x52, 0x54, 0, 0, 0, 2}), kListed = bytes({2, 0, 0, 0, 0, 9}),
                   kOther = bytes({2, 0, 0, 0, 0, 8}), kGroup = bytes({1, 0, 0x5e, 0, 0, 1});

struct Setting {
    const char* name;
    uint64_t rings;
    guest::Vmm vmm;
};
inline std::ostream& operator<<(std::ostream& out, const Setting& s) { return out << s.name; }

inline const std::string kControlled = many_pairs(true);

/// `receiver()`, port 1, is who sends commands.
class ControlQueue : public ManyPairs<kControlled>,
                     public testing::WithParamInterface<Setting> {
  protected:
    void boot_with(uint64_t features) {
        boot(features | GetParam().rings, GetParam().vmm);
        if (!HasFatalFailure()) before = counters();
    }
    static std::map<std::string, uint64_t> counters() {
        auto all = daemon->counters();
        EXPECT_TRUE(all) << all.error().message;
        return all ? std::move(*all) : std::map<std::string, uint64_t>{};
    }
    /// How much a counter of the receiver has grown.
    uint64_t grown(const std::string& name) {
        auto now = counters();
        const auto full = "net.vm0/net1." + name;
        EXPECT_TRUE(now.contains(full)) << full;
        return now[full] - before[full];
    }
    /// The receiver's command.
    uint8_t run(uint8_t class_, uint8_t command, const Bytes& data,
                const guest::CommandLayout& layout = {}) {
        const auto ack = receiver().control()->command(class_, command, data, layout);
        EXPECT_TRUE(ack) << ack.error().message;
        ++commands;
        return ack ? *ack : 0xff;
    }
    uint8_t mode(uint8_t command, bool on) {
        return run(wire::VIRTIO_NET_CTRL_RX, command, le(on, 1));
    }
    uint8_t offloads(uint64_t features) {
        return run(wire::VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, le(features, 8));
    }
    /// Own address, one listed address, VLAN 5.
    void filter() {
        EXPECT_EQ(mode(wire::VIRTIO_NET_CTRL_RX_PROMISC, false), wire::VIRTIO_NET_OK);
        EXPECT_EQ(run(wire::VIRTIO_NET_CTRL_MAC, wire::VIRTIO_NET_CTRL_MAC_TABLE_SET,
                      le(1, 4) + kListed + le(1, 4) + kGroup),
                  wire::VIRTIO_NET_OK);
        EXPECT_EQ(run(wire::VIRTIO_NET_CTRL_VLAN, wire::VIRTIO_NET_CTRL_VLAN_ADD, le(5, 2)),
                  wire::VIRTIO_NET_OK);
    }
    /// As filter() wants it; or nothing is filtered.
    void expect_filtered(bool filtered) {
        EXPECT_TRUE(arrives(kOwn));
        EXPECT_TRUE(arrives(kListed));
        EXPECT_TRUE(arrives(kGroup));
        EXPECT_TRUE(arrives(kOwn, 5));
        const uint64_t dropped = grown("to_guest.drop_filtered");
        EXPECT_EQ(arrives(kOther), !filtered);
        EXPECT_EQ(arrives(bytes({1, 0, 0x5e, 0, 0, 2})), !filtered);
        EXPECT_EQ(arrives(kOwn, 6), !filtered);
        EXPECT_EQ(grown("to_guest.drop_filtered") - dropped, filtered ? 3u : 0u);
    }
    /// Whether a frame to `mac` comes before one to everybody that is sent after it.
    bool arrives(const Bytes& mac, int vlan = -1) {
        auto frame = guest::make_frame({}, ++serial, std::array<std::byte, 32>{});
        const auto marker = guest::make_frame({}, ++serial, std::array<std::byte, 32>{});
        std::ranges::copy(mac, frame.begin());
        const auto tag = bytes({0x81, 0, 0, unsigned(vlan)});
        if (vlan >= 0) frame.insert(frame.begin() + 12, tag.begin(), tag.end());
        EXPECT_TRUE(send(frame, 0) && send(marker, 0));
        bool came = false, over = false;
        guest::Patience patience(kSoon);
        do {
            for (uint16_t pair = 0; pair < kPairs; ++pair)
                EXPECT_TRUE(receiver().rx(pair).receive(32, [&](std::span<const std::byte> p) {
                    const bool is_marker = std::ranges::equal(p, marker);
                    (is_marker ? over : came) = true;
                    EXPECT_TRUE(is_marker || std::ranges::equal(p, frame));
                }));
        } while (!over && patience.wait());
        EXPECT_TRUE(over) << "nothing comes any more";
        return came;
    }

    std::map<std::string, uint64_t> before;
    std::mt19937 rng{1};
    unsigned commands = 0;
    uint32_t serial = 0;
};

}  // namespace viommu::e2e
