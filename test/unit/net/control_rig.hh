// SPDX-License-Identifier: BSD-3-Clause
/// A guest with a control queue: NetRig's two rings are the queues of one of its pairs.
#pragma once

#include "offload_rig.hh"

namespace viommu::net::test {

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
inline Bytes mac_bytes(unsigned last, unsigned first = 0x02) {
    return bytes({first, 0, 0, 0, 0, last});
}
/// All of an RSS command: four entries that name `pairs` in turn.
inline Bytes rss_command(unsigned pairs) {
    Bytes b = bytes({wire::VIRTIO_NET_CTRL_MQ, wire::VIRTIO_NET_CTRL_MQ_RSS_CONFIG}) +
              le(kRssHashTypes, 4) + le(3, 2) + le(0, 2);
    for (unsigned i = 0; i < 4; ++i) b = b + le(i % pairs, 2);
    return b + le(pairs, 2) + bytes({40}) + frame(40, 3);
}
inline Bytes promiscuous(bool on) {
    return bytes({wire::VIRTIO_NET_CTRL_RX, wire::VIRTIO_NET_CTRL_RX_PROMISC, on});
}
inline Bytes set_pairs(unsigned n) {
    return bytes({wire::VIRTIO_NET_CTRL_MQ, wire::VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET}) + le(n, 2);
}
inline Bytes set_mac(unsigned last) {
    return bytes({wire::VIRTIO_NET_CTRL_MAC, wire::VIRTIO_NET_CTRL_MAC_ADDR_SET}) + mac_bytes(last);
}
inline Bytes set_offloads(uint64_t features) {
    return bytes({wire::VIRTIO_NET_CTRL_GUEST_OFFLOADS,
                  wire::VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET}) +
           le(features, 8);
}

inline constexpr std::array<uint8_t, 6> kOwnMac{0x52, 0x54, 0, 1, 2, 3};
inline constexpr unsigned kNoAck = 256;  ///< not answered yet
inline constexpr uint64_t kAllOffered =
    kOffloads | bit(wire::VIRTIO_NET_F_CTRL_VQ) | bit(wire::VIRTIO_NET_F_CTRL_RX) |
    bit(wire::VIRTIO_NET_F_CTRL_RX_EXTRA) | bit(wire::VIRTIO_NET_F_CTRL_VLAN) |
    bit(wire::VIRTIO_NET_F_CTRL_MAC_ADDR) | bit(wire::VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
inline constexpr uint64_t kPairsOffered =
    kAllOffered | bit(wire::VIRTIO_NET_F_MQ) | bit(wire::VIRTIO_NET_F_RSS);

class ControlRig : public OffloadRig {
  public:
    static constexpr uint64_t kControlRing = kRings + 0x3000000;

    /// `pair`: what the rig's two rings are the queues of.
    ControlRig(const Pool& pool, uint64_t features, uint16_t pairs = 1, uint16_t pair = 0)
        : OffloadRig(pool, options_of(features, pairs)) {
        for (uint16_t q = 0; q < 2; ++q) vrings[q].index = uint16_t(2 * pair + q);
        ring.index = (features & ~kAllOffered & kPairsOffered) != 0 ? uint16_t(2 * pairs)
                                                                   : uint16_t{2};
        ring.size = kSize;
        ring.desc = kControlRing;
        ring.avail = kControlRing + 0x400000;
        ring.used = kControlRing + 0x800000;
        ring.kick_fd = kick_control.fd;
        ring.call_fd = call_control.fd;
        for (const uint64_t at : {ring.desc, ring.avail, ring.used}) map_range(at, kPage);
        new_driver();
        start();
        port->queue_started(ring);
    }
    /// The driver begins with a ring of zeros, as after a reset of the device.
    void new_driver() {
        for (const uint64_t at : {ring.desc, ring.avail, ring.used})
            space.write(at, Bytes(kPage).data(), kPage);
        ring.base = vrings[0].base;
        control = make_driver(ring);
        sent_.clear();
    }
    void stop_control() { ring.base = port->queue_stopped(ring.index); }

    /// Make a command available; `cuts` and `indirect` as OffloadRig's. The ack lies in the first
    /// of `room` writable bytes, which begin a descriptor.
    void issue(const Bytes& command, std::vector<uint32_t> cuts = {}, bool indirect = false,
               uint32_t room = 1) {
        const uint64_t at = data(uint32_t(command.size()) + room);
        const uint64_t ack = at + command.size();
        space.write(at, command.data(), command.size());
        space.write(ack, Bytes(room, std::byte{0xee}).data(), room);
        cuts.push_back(uint32_t(command.size()));
        std::vector<Desc> chain;
        for (uint32_t from = 0; const uint32_t to : cuts) {
            chain.push_back({at + from, to - from, 0, 0});
            from = to;
        }
        if (room != 0) chain.push_back({ack, room, virtq::test::kWrite, 0});
        issue_at(chain, ack, indirect);
    }
    void issue_at(const std::vector<Desc>& chain, uint64_t ack, bool indirect = false) {
        const auto id = indirect ? control->indirect(data(uint32_t(16 * chain.size())), chain)
                                 : control->chain(chain);
        ASSERT_TRUE(id);
        sent_[*id] = ack;
        control->publish();
    }
    /// The next command that came back: its ack; kNoAck: none has. `written`: as the ring has it.
    unsigned answer(uint32_t* written = nullptr) {
        const auto used = control->pop();
        if (!used) return kNoAck;
        if (written != nullptr) *written = used->len;
        return unsigned(space.get<uint8_t>(sent_.at(used->id)));
    }
    unsigned run(const Bytes& command, const std::vector<uint32_t>& cuts = {},
                 bool indirect = false, uint32_t room = 1) {
        issue(command, cuts, indirect, room);
        port->poll_control();
        return answer();
    }

    /// Whether a packet to this address comes to the guest.
    bool comes(const Pool& pool, const Bytes& to, uint16_t pair = 0) {
        Bytes b = to + frame(60);
        put16(b, 12, 0x0800);
        if (provided() == 0) provide(4, 2000);
        rte_mbuf* one[] = {pool.packet(b)};
        if (port->to_guest(pair, one) == 0) rte_pktmbuf_free(one[0]);
        const auto got = received(true);
        EXPECT_LE(got.size(), 1u);
        return !got.empty() && got[0].bytes == b;
    }
    /// The address in the configuration space.
    Bytes mac() const {
        Bytes b(6);
        port->config_read(0, b);
        return b;
    }
    const Counters& commands() const { return *port->control_counters(); }

    EventFd kick_control, call_control;
    virtq::Vring ring;
    std::unique_ptr<Driver> control;

  private:
    static constexpr uint32_t kSize = 16;
    static Options options_of(uint64_t features, uint16_t pairs) {
        Options o = with(features);
        o.config.mac = kOwnMac;
        o.config.control_queue = true;
        o.config.queue_pairs = pairs;
        o.run = false;
        return o;
    }
    std::map<uint32_t, uint64_t> sent_;
};

inline const Bytes kOwn = bytes({0x52, 0x54, 0, 1, 2, 3}), kOther = mac_bytes(9),
                   kMulti = mac_bytes(1, 0x01), kBroadcast = Bytes(6, std::byte{0xff});

}  // namespace viommu::net::test
