// SPDX-License-Identifier: BSD-3-Clause
#include "config_rules.hh"

#include <algorithm>
#include <set>

#include "join.hh"

namespace viommu::app {
namespace {

std::string quoted(std::string_view text) { return fmt::format("\"{}\"", text); }

/// Of a pair, the end without the key goes where the other is: packets then stay in one cache.
void share_lcores(Net& a, Net& b) {
    if (a.lcores_given && b.lcores_given) return;
    const bool b_decides = b.lcores_given && !a.lcores_given;
    const Net& from = b_decides ? b : a;
    Net& to = b_decides ? a : b;
    to.lcores = from.lcores;
    if (to.lcores.size() > to.queue_pairs) to.lcores.resize(to.queue_pairs);
}

}  // namespace

void Rules::claim(const std::string& what, const std::string& value, const Place& place) {
    if (value.empty()) return;
    const auto [at, fresh] = claimed_.try_emplace({what, value}, place);
    if (fresh) return;
    problems_.add(place, quoted(value),
                  fmt::format("is taken as {} at {}:{} already; each must differ", what,
                              at->second.file, at->second.line));
}

void Rules::claim_device(const Net& net) {
    const std::string& target = net.peer.target;
    if (net.peer.kind == Peer::Kind::kVdev)
        claim("peer device", target.substr(0, target.find(',')), net.peer.place);
    if (net.peer.kind == Peer::Kind::kEthdev) claim("peer device", target, net.peer.place);
}

void Rules::check_pair(Port& port, std::map<std::string, Port>& ports) {
    const Peer& peer = port.net->peer;
    const std::string spelled = quoted("guest:" + peer.target);
    const auto found = ports.find(peer.target);
    if (found == ports.end()) {
        problems_.add(peer.place, spelled,
                      fmt::format("there is no such port; there are {}",
                                  join(ports, ", ", [](const auto& p) { return p.first; })));
        return;
    }
    Port& other = found->second;
    if (other.net == port.net) {
        problems_.add(peer.place, spelled,
                      "a port cannot be its own peer; name another one, or leave the key out");
        return;
    }
    Peer& back = other.net->peer;
    if (back.kind == Peer::Kind::kNone) {
        back = {Peer::Kind::kNet, port.name(), peer.place};
    } else if (back.kind != Peer::Kind::kNet || back.target != port.name()) {
        problems_.add(peer.place, spelled,
                      fmt::format("{} has another peer ({}:{}), and a port has one; write "
                                  "peer = \"guest:{}\" there, or leave one of the two out",
                                  other.name(), back.place.file, back.place.line, port.name()));
    }
}

void Rules::resolve_peers(Config& config) {
    std::map<std::string, Port> ports;
    for (Guest& guest : config.guests)
        for (Net& net : guest.nets)
            ports.try_emplace(guest.name + "/" + net.name, Port{&guest, &net});
    for (Guest& guest : config.guests)
        for (Net& net : guest.nets) {
            Port port{&guest, &net};
            claim_device(net);
            if (net.peer.kind == Peer::Kind::kNet) check_pair(port, ports);
        }
    for (const Link& link : links_of(config)) {
        if (!link.b) continue;
        Guest& guest_a = config.guests[link.a.guest];
        Guest& guest_b = config.guests[link.b->guest];
        Port a{&guest_a, &guest_a.nets[link.a.net]};
        Port b{&guest_b, &guest_b.nets[link.b->net]};
        if (b.net->peer.target == a.name()) share_lcores(*a.net, *b.net);
    }
}

std::vector<Link> links_of(const Config& config) {
    const auto& guests = config.guests;
    const auto find = [&](const std::string& target) -> std::optional<Link::End> {
        for (size_t g = 0; g < guests.size(); g++)
            for (size_t n = 0; n < guests[g].nets.size(); n++)
                if (guests[g].name + "/" + guests[g].nets[n].name == target) return Link::End{g, n};
        return std::nullopt;
    };
    std::vector<Link> links;
    for (size_t g = 0; g < guests.size(); g++)
        for (size_t n = 0; n < guests[g].nets.size(); n++) {
            Link link{{g, n}, std::nullopt};
            const Peer& peer = guests[g].nets[n].peer;
            if (peer.kind == Peer::Kind::kNet) link.b = find(peer.target);
            const bool seen_from_b =
                link.b && std::pair(link.b->guest, link.b->net) < std::pair(g, n);
            if (!seen_from_b) links.push_back(link);
        }
    return links;
}

std::vector<unsigned> lcores_of(const Config& config) {
    std::set<unsigned> ids;
    for (const Guest& guest : config.guests) {
        ids.insert(guest.lcore.id);
        for (const Net& net : guest.nets)
            for (const Lcore& lcore : net.lcores) ids.insert(lcore.id);
    }
    return {ids.begin(), ids.end()};
}

}  // namespace viommu::app
