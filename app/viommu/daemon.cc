// SPDX-License-Identifier: BSD-3-Clause
#include "daemon.hh"

#include <rte_errno.h>
#include <rte_ether.h>
#include <rte_mbuf.h>

namespace viommu::app {
namespace {

/// Enough for every ring and cache a link's packets can be in, and a burst on its way.
constexpr unsigned kMbufsPerNet = 4096;
constexpr unsigned kMbufCache = 256;

/// Of the largest packet, in one piece.
uint16_t data_room(const Config& config) {
    uint32_t largest = RTE_MBUF_DEFAULT_DATAROOM;
    for (const Guest& guest : config.guests)
        for (const Net& net : guest.nets)
            largest = std::max<uint32_t>(largest, net.mtu.value_or(0) + RTE_ETHER_HDR_LEN +
                                                      2 * RTE_VLAN_HLEN + RTE_ETHER_CRC_LEN);
    return uint16_t(RTE_PKTMBUF_HEADROOM + RTE_ALIGN(largest, RTE_CACHE_LINE_SIZE));
}

}  // namespace

void Daemon::PoolFreer::operator()(rte_mempool* pool) const { rte_mempool_free(pool); }

Daemon::Daemon(const Config& config) : config_(config), lcores_(lcores_of(config), config.poll) {}

Daemon::~Daemon() { stop(); }

Result<std::unique_ptr<Daemon>> Daemon::create(const Config& config, Devices devices) {
    std::unique_ptr<Daemon> daemon(new Daemon(config));
    auto done = daemon->make_pool();
    if (done) done = daemon->make_services(std::move(devices));
    for (const Link& link : links_of(config))
        if (done) done = daemon->connect(link);
    if (done) done = daemon->lcores_.launch();
    if (done) done = daemon->listen();
    if (!done) return tl::unexpected(done.error());
    return daemon;
}

Result<void> Daemon::make_pool() {
    unsigned nets = 0;
    for (const Guest& guest : config_.guests) nets += unsigned(guest.nets.size());
    if (nets == 0) return {};
    const unsigned mbufs = nets * kMbufsPerNet;
    const uint16_t room = data_room(config_);
    pool_.reset(rte_pktmbuf_pool_create("viommu", mbufs, kMbufCache, 0, room, SOCKET_ID_ANY));
    if (pool_) return {};
    return fail(
        "no memory for {} packets of {} bytes: {}; give the EAL more (-m) or configure "
        "fewer net ports",
        mbufs, room, rte_strerror(rte_errno));
}

Result<void> Daemon::make_services(Devices devices) {
    for (size_t g = 0; g < config_.guests.size(); g++) {
        const Guest& guest = config_.guests[g];
        guests_.push_back(std::make_unique<GuestIommu>(guest, std::move(devices[g]), lcores_));
        nets_.emplace_back();
        for (const Net& net : guest.nets) {
            auto service = NetService::create(guest, net, guests_.back()->device(), *pool_);
            if (!service) return tl::unexpected(service.error());
            nets_.back().push_back(std::move(*service));
        }
    }
    return {};
}

const Net& Daemon::net_of(const Link::End& end) const {
    return config_.guests[end.guest].nets[end.net];
}

Result<void> Daemon::connect(const Link& link) {
    const Net& net = net_of(link.a);
    Wire wire{nullptr, nullptr, &service_of(link.a), nullptr, &lcores_.at(net.lcore.id)};
    if (link.b) {
        wire.b = &service_of(*link.b);
    } else if (net.peer.kind == Peer::Kind::kNone) {
        wire.outer = std::make_unique<Discard>();
    } else {
        auto ethdev = Ethdev::open(net.peer, net.mtu, *pool_);
        if (!ethdev) return tl::unexpected(ethdev.error());
        wire.outer = std::move(*ethdev);
    }
    PacketEnd& other = wire.b ? wire.b->end() : *wire.outer;
    wire.patch = std::make_unique<Patch>(wire.a->end(), other);
    wire.a->drive_with(*wire.patch, *wire.poller);
    if (wire.b) wire.b->drive_with(*wire.patch, *wire.poller);
    wire.poller->add(*wire.patch);
    wires_.push_back(std::move(wire));
    return {};
}

Result<void> Daemon::listen() {
    for (size_t g = 0; g < guests_.size(); g++)
        if (auto added = reader_sockets_.add(config_.guests[g], guests_[g]->device()); !added)
            return added;
    if (auto started = reader_sockets_.start(); !started) return started;
    for (auto& guest : guests_)
        if (auto listening = guest->listen(); !listening) return listening;
    for (auto& nets : nets_)
        for (auto& net : nets)
            if (auto listening = net->listen(); !listening) return listening;
    return {};
}

void Daemon::stop() {
    // While lcores poll: closing a connection hands rings back, which they take part in.
    for (auto& nets : nets_)
        for (auto& net : nets) net->close();
    for (auto& guest : guests_) guest->close();
    // After the last answer, which had to wait for readers.
    reader_sockets_.stop();
    lcores_.stop();
    for (const Wire& wire : wires_) wire.poller->remove(*wire.patch);
}

void Daemon::add_wire_counters(Counters& out, const Wire& wire) const {
    const auto add = [&out](const NetService& net, const Patch::Direction& to_peer,
                            const Patch::Direction& from_peer) {
        out.add(net.counter_prefix(), "to_peer.packets", to_peer.packets.was());
        out.add(net.counter_prefix(), "to_peer.bytes", to_peer.bytes.was());
        out.add(net.counter_prefix(), "to_peer.drop_full", to_peer.dropped_full.was());
        out.add(net.counter_prefix(), "from_peer.packets", from_peer.packets.was());
        out.add(net.counter_prefix(), "from_peer.bytes", from_peer.bytes.was());
        out.add(net.counter_prefix(), "from_peer.drop_full", from_peer.dropped_full.was());
    };
    wire.a->add_counters(out);
    add(*wire.a, wire.patch->a_to_b(), wire.patch->b_to_a());
    if (wire.b) {
        wire.b->add_counters(out);
        add(*wire.b, wire.patch->b_to_a(), wire.patch->a_to_b());
    }
}

std::string Daemon::counters() {
    Counters out;
    for (size_t g = 0; g < guests_.size(); g++) {
        uint64_t lost = 0;
        for (const auto& net : nets_[g]) lost += net->lost_faults();
        guests_[g]->add_counters(out, lost);
        reader_sockets_.add_counters(out, config_.guests[g]);
    }
    for (const Wire& wire : wires_) add_wire_counters(out, wire);
    lcores_.add_counters(out);
    return out.text();
}

std::vector<std::string> Daemon::warnings() {
    std::vector<std::string> out;
    for (auto& guest : guests_)
        if (auto warning = guest->quota_warning()) out.push_back(std::move(*warning));
    return out;
}

}  // namespace viommu::app
