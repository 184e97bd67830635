// SPDX-License-Identifier: BSD-3-Clause
#include "daemon.hh"

#include "viommu_poll.hh"

namespace viommu::app {
namespace {

std::vector<unsigned> ids(const Net& net) {
    std::vector<unsigned> out;
    for (const Lcore& lcore : net.lcores) out.push_back(lcore.id);
    return out;
}

}  // namespace

Daemon::Daemon(const Config& config) : config_(config), lcores_(lcores_of(config), config.poll) {}

Daemon::~Daemon() { stop(); }

Result<std::unique_ptr<Daemon>> Daemon::create(const Config& config, Devices devices) {
    std::unique_ptr<Daemon> daemon(new Daemon(config));
    auto pools = Pools::create(config);
    if (!pools) return tl::unexpected(pools.error());
    daemon->pools_ = std::move(*pools);
    auto done = daemon->make_services(std::move(devices));
    for (const Link& link : links_of(config))
        if (done) done = daemon->connect(link);
    if (done) done = daemon->lcores_.launch();
    if (done) done = daemon->listen();
    if (!done) return tl::unexpected(done.error());
    return daemon;
}

Result<void> Daemon::make_services(Devices devices) {
    for (size_t g = 0; g < config_.guests.size(); g++) {
        const Guest& guest = config_.guests[g];
        guests_.push_back(std::make_unique<GuestIommu>(guest, std::move(devices[g]), lcores_));
        nets_.emplace_back();
        for (const Net& net : guest.nets) {
            auto service = NetService::create(guest, net, guests_.back()->device(), pools_.of(net));
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
    Cable cable{&service_of(link.a), nullptr, nullptr, nullptr, nullptr};
    std::vector<unsigned> others = ids(net);
    if (link.b) {
        cable.b = &service_of(*link.b);
        others = ids(net_of(*link.b));
    } else if (net.peer.kind == Peer::Kind::kNone) {
        cable.outer = std::make_unique<Discard>();
    } else {
        auto ethdev = Ethdev::open(net.peer,
                                   {.mtu = net.mtu,
                                    .pairs = net.queue_pairs,
                                    .lcores = unsigned(net.lcores.size()),
                                    .offloads = net.offloads},
                                   pools_.of(net));
        if (!ethdev) return tl::unexpected(ethdev.error());
        cable.ethdev = ethdev->get();
        cable.outer = std::move(*ethdev);
    }
    PacketEnd& other = cable.b ? cable.b->end() : *cable.outer;
    cable.wire = std::make_unique<Wire>(Wire::End{cable.a->end(), ids(net)},
                                        Wire::End{other, others}, lcores_);
    cable.a->drive_with(*cable.wire);
    if (cable.b) cable.b->drive_with(*cable.wire);
    cable.wire->resume();
    cables_.push_back(std::move(cable));
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
    for (const Cable& cable : cables_) cable.wire->pause();
}

std::string Daemon::counters() {
    Counters out;
    for (size_t g = 0; g < guests_.size(); g++) {
        uint64_t lost = 0;
        for (const auto& net : nets_[g]) lost += net->lost_faults();
        guests_[g]->add_counters(out, lost);
        reader_sockets_.add_counters(out, config_.guests[g]);
    }
    for (const Cable& cable : cables_) {
        cable.a->add_counters(out, cable.wire->a_to_b(), cable.wire->b_to_a(), cable.ethdev);
        if (cable.b)
            cable.b->add_counters(out, cable.wire->b_to_a(), cable.wire->a_to_b(), nullptr);
    }
    lcores_.add_counters(out);
    return out.text();
}

void Daemon::watch_devices() {
    for (const Cable& cable : cables_) {
        if (!cable.ethdev) continue;
        cable.a->set_link(cable.ethdev->link_up());
        cable.ethdev->steer_like(cable.a->port());
    }
}

std::vector<std::string> Daemon::warnings() {
    std::vector<std::string> out;
    for (auto& guest : guests_)
        if (auto warning = guest->quota_warning()) out.push_back(std::move(*warning));
    return out;
}

}  // namespace viommu::app
