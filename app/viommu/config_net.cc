// SPDX-License-Identifier: BSD-3-Clause
#include "config_net.hh"

#include <algorithm>
#include <span>

#include "config_values.hh"
#include "join.hh"
#include "units.hh"

namespace viommu::app {
namespace {

/// virtio 1.3, 5.1.4: "speed ... Valid values are 0x0 to 0x7fffffff"; 0 would be a dead link.
constexpr uint32_t kMaxSpeedMbps = 0x7fffffff;

Peer read_peer(const Section& s) {
    constexpr std::string_view kForms =
        "write \"vdev:net_tap0,iface=vtap0\", \"ethdev:<DPDK port name>\" or "
        "\"guest:<guest>/<net>\"";
    Peer peer;
    peer.place = s.place("peer");
    const auto text = s.string("peer", "\"vdev:net_tap0,iface=vtap0\"");
    if (!text) return peer;
    const size_t colon = std::min(text->find(':'), text->size());
    const std::string kind = text->substr(0, colon);
    peer.target = colon == text->size() ? "" : text->substr(colon + 1);
    if (kind == "vdev")
        peer.kind = Peer::Kind::kVdev;
    else if (kind == "ethdev")
        peer.kind = Peer::Kind::kEthdev;
    else if (kind == "guest")
        peer.kind = Peer::Kind::kNet;
    else
        s.problem("peer", fmt::format("does not begin with a kind of peer; {}", kForms));
    if (peer.kind != Peer::Kind::kNone && peer.target.empty()) {
        s.problem("peer", fmt::format("names nothing after '{}:'; {}", kind, kForms));
        peer.kind = Peer::Kind::kNone;
    }
    return peer;
}

MacAddress read_mac(const Section& s, const std::string& default_name) {
    const auto text = s.string("mac", "\"52:54:00:12:34:56\"");
    if (!text) return derive_mac(default_name);
    const auto mac = parse_mac(*text);
    if (mac && !((*mac)[0] & 1) && *mac != MacAddress{}) return *mac;
    s.problem("mac", fmt::format("{}; write e.g. mac = \"52:54:00:12:34:56\", or leave the key out "
                                 "for an address derived from the names",
                                 mac ? "is not a unicast address" : "is not a MAC address"));
    return {};
}

std::string spelled(std::span<const Lcore> lcores) {
    return fmt::format("[{}]",
                       join(lcores, ", ", [](const Lcore& l) { return std::to_string(l.id); }));
}

void read_lcores_of(const Section& s, Net& net) {
    net.lcores = read_lcores(s);
    net.lcores_given = !net.lcores.empty();
    for (size_t i = 1; i < net.lcores.size(); i++)
        for (size_t earlier = 0; earlier < i; earlier++)
            if (net.lcores[i].id == net.lcores[earlier].id)
                return s.problem("lcore", fmt::format("names lcore {} twice; name each once, pairs "
                                                      "of queues are dealt out to them in turn",
                                                      net.lcores[i].id));
    if (net.lcores.size() <= net.queue_pairs) return;
    s.problem("lcore", fmt::format("names {} lcores for {} of queues, and some would have nothing "
                                   "to do; write lcore = {}, or queue_pairs = {}",
                                   net.lcores.size(),
                                   net.queue_pairs == 1 ? "1 pair"
                                                        : fmt::format("{} pairs", net.queue_pairs),
                                   spelled(std::span(net.lcores).first(net.queue_pairs)),
                                   net.lcores.size()));
}

}  // namespace

Net read_net(const Section& s, const Guest& guest, Rules& rules) {
    s.check_keys({"name", "socket", "endpoint", "mac", "mtu", "queue_pairs", "control_queue",
                  "offloads", "speed", "ring_addresses", "peer", "lcore", "reserved"});
    Net net;
    net.name = read_name(s, "\"net0\"");
    net.socket = read_socket(s, "\"/run/dpdk-viommu/vm0/net0.sock\"");
    rules.claim("socket", net.socket, s.place("socket"));
    rules.claim(fmt::format("net name of guest '{}'", guest.name), net.name, s.place("name"));
    net.endpoint = read_endpoint(s, "endpoint").value_or(0);
    net.mac = read_mac(s, guest.name + "/" + net.name);
    if (const auto mtu = s.number("mtu", 68, 9216, "1500")) net.mtu = uint16_t(*mtu);
    if (const auto n = s.number("queue_pairs", 1, kMaxQueuePairs, "4"))
        net.queue_pairs = uint16_t(*n);
    net.control_queue = s.boolean("control_queue").value_or(net.control_queue);
    net.offloads = s.boolean("offloads").value_or(net.offloads);
    if (const auto mbps = s.number("speed", 1, kMaxSpeedMbps, "10000"))
        net.speed_mbps = uint32_t(*mbps);
    const auto rings = s.string("ring_addresses", "\"auto\"").value_or("auto");
    if (rings == "iova")
        net.ring_addresses = net::RingAddresses::kIova;
    else if (rings == "uva")
        net.ring_addresses = net::RingAddresses::kUva;
    else if (rings != "auto")
        s.problem("ring_addresses", "is no way to give them; write \"auto\", \"iova\" or \"uva\"");
    net.peer = read_peer(s);
    read_lcores_of(s, net);
    if (net.lcores.empty()) net.lcores = {guest.lcore};
    return net;
}

}  // namespace viommu::app
