// SPDX-License-Identifier: BSD-3-Clause
#include "report.hh"

#include <cctype>
#include <utility>

#include "join.hh"
#include "units.hh"

#ifndef VIOMMU_VERSION
#error "the build defines VIOMMU_VERSION"
#endif

namespace viommu::app {
namespace {

class Lines {
  public:
    explicit Lines(std::string& out) : out_(out) {}
    void put(unsigned indent, std::string_view label, std::string_view value) {
        constexpr unsigned kValueColumn = 20;
        out_ +=
            fmt::format("{:{}}{:<{}} {}\n", "", indent, label, kValueColumn - 1 - indent, value);
    }

  private:
    std::string& out_;
};

std::string feature_names(uint64_t features) {
    constexpr std::pair<unsigned, const char*> kNames[] = {
        {wire::VIRTIO_IOMMU_F_INPUT_RANGE, "INPUT_RANGE"},
        {wire::VIRTIO_IOMMU_F_DOMAIN_RANGE, "DOMAIN_RANGE"},
        {wire::VIRTIO_IOMMU_F_MAP_UNMAP, "MAP_UNMAP"},
        {wire::VIRTIO_IOMMU_F_BYPASS, "BYPASS"},
        {wire::VIRTIO_IOMMU_F_PROBE, "PROBE"},
        {wire::VIRTIO_IOMMU_F_MMIO, "MMIO"},
        {wire::VIRTIO_IOMMU_F_BYPASS_CONFIG, "BYPASS_CONFIG"},
        {28, "INDIRECT_DESC"},
        {29, "EVENT_IDX"},
        {wire::VIRTIO_F_VERSION_1, "VERSION_1"},
    };
    std::vector<std::string> names;
    for (const auto& [bit, name] : kNames) {
        if ((features >> bit & 1) == 0) continue;
        names.emplace_back(name);
        features &= ~(uint64_t{1} << bit);
    }
    if (features != 0) names.push_back(fmt::format("{:#x}", features));
    return join(names, " ");
}

std::string peer_name(const Peer& peer) {
    switch (peer.kind) {
        case Peer::Kind::kVdev:
            return "vdev " + peer.target;
        case Peer::Kind::kEthdev:
            return "ethdev " + peer.target;
        case Peer::Kind::kNet:
            return "guest " + peer.target;
        case Peer::Kind::kNone:
            break;
    }
    return "none: packets from the guest are dropped";
}

const char* ring_name(net::RingAddresses rings) {
    return rings == net::RingAddresses::kIova  ? "iova"
           : rings == net::RingAddresses::kUva ? "uva"
                                               : "auto";
}

std::string region_text(const device::ReservedRegion& region) {
    return fmt::format("{} {}", region.range,
                       region.type == device::ReservedRegion::Type::kMsi ? "msi" : "reserved");
}

void describe_device(Lines& lines, const device::Config& device) {
    lines.put(2, "page sizes", format_page_sizes(device.page_size_mask));
    lines.put(2, "input range", fmt::format("{}", device.input_range));
    lines.put(2, "domain range", fmt::format("[{}, {}]", device.domain_first, device.domain_last));
    lines.put(2, "bypass",
              device.legacy_bypass ? "when the driver accepts it"
              : device.bypass      ? "on"
                                   : "off");
    for (const auto& region : device.reserved) lines.put(2, "reserved", region_text(region));
    for (const auto& [endpoint, regions] : device.endpoint_reserved)
        for (const auto& region : regions)
            lines.put(2, "reserved",
                      fmt::format("{} for {}", region_text(region), format_bdf(endpoint)));
    lines.put(2, "quotas",
              fmt::format("{} domains, {} mappings, arena {}", device.max_domains,
                          device.max_mappings, format_size(device.arena_bytes)));
    lines.put(2, "endpoints", join(device.endpoints, " ", format_bdf));
}

void describe_net(Lines& lines, const Net& net) {
    lines.put(2, "net " + net.name, net.socket);
    lines.put(4, "endpoint", format_bdf(net.endpoint));
    lines.put(4, "mac", format_mac(net.mac));
    if (net.mtu) lines.put(4, "mtu", std::to_string(*net.mtu));
    lines.put(4, "rings", ring_name(net.ring_addresses));
    lines.put(4, "queues",
              fmt::format("{} pair{}{}", net.queue_pairs, net.queue_pairs == 1 ? "" : "s",
                          net.control_queue ? " and the control queue" : ""));
    lines.put(4, "offloads", net.offloads ? "on" : "off");
    if (net.speed_mbps) lines.put(4, "speed", fmt::format("{} Mb/s", *net.speed_mbps));
    lines.put(4, net.lcores.size() == 1 ? "lcore" : "lcores",
              join(net.lcores, " ", [](const Lcore& l) { return std::to_string(l.id); }));
    lines.put(4, "peer", peer_name(net.peer));
}

/// "NOENT" -> "noent"
std::string lower(std::string text) {
    for (char& c : text) c = char(std::tolower(static_cast<unsigned char>(c)));
    return text;
}

}  // namespace

std::string describe(const Config& config, std::span<const uint64_t> features) {
    std::string out = "dpdk-viommu " VIOMMU_VERSION "\n";
    Lines lines(out);
    lines.put(2, "poll", config.poll == poll::Policy::kBusy ? "busy" : "adaptive");
    lines.put(2, "lcores",
              join(lcores_of(config), " ", [](unsigned id) { return std::to_string(id); }));
    for (size_t i = 0; i < config.guests.size(); i++) {
        const Guest& guest = config.guests[i];
        out += fmt::format("\nguest {}\n", guest.name);
        lines.put(2, "socket", guest.socket);
        lines.put(2, "lcore", std::to_string(guest.lcore.id));
        if (i < features.size()) lines.put(2, "features", feature_names(features[i]));
        describe_device(lines, guest.device);
        if (guest.readers)
            lines.put(2, "readers",
                      fmt::format("{}; {} after {} ms in one section", guest.readers->socket,
                                  guest.readers->stalled == share::StalledReaders::kKill
                                      ? "killed"
                                      : "taken offline",
                                  guest.readers->stall.count()));
        for (const Net& net : guest.nets) describe_net(lines, net);
    }
    return out;
}

void Counters::heading(std::string_view text) { text_ += fmt::format("# {}\n", text); }

void Counters::add(std::string_view prefix, std::string_view name, uint64_t value) {
    text_ += fmt::format("{}.{} {}\n", prefix, name, value);
}

void add_device(Counters& out, const std::string& guest, const device::Device::Stats& stats,
                uint64_t faults_lost, const table::Table::Usage& usage) {
    const std::string prefix = "guest." + guest;
    out.heading("guest " + guest);
    out.add(prefix, "requests.attach", stats.attach.was());
    out.add(prefix, "requests.attach_bypass", stats.attach_bypass.was());
    out.add(prefix, "requests.detach", stats.detach.was());
    out.add(prefix, "requests.map", stats.map.was());
    out.add(prefix, "requests.map_mmio", stats.map_mmio.was());
    out.add(prefix, "requests.unmap", stats.unmap.was());
    out.add(prefix, "requests.probe", stats.probe.was());
    out.add(prefix, "requests.unreadable", stats.unreadable.was());
    for (size_t s = 0; s < stats.status.size(); s++)
        out.add(prefix, "status." + lower(to_string(Status(s))), stats.status[s].was());
    constexpr std::string_view kNames[] = {"domains", "mappings", "arena"};  // table::Quota
    static_assert(std::size(kNames) == table::kQuotas);
    for (size_t q = 0; q < stats.exhausted.size(); q++)
        out.add(prefix, fmt::format("quota.{}", kNames[q]), stats.exhausted[q].was());
    out.add(prefix, "faults.reported", stats.faults_reported.was());
    out.add(prefix, "faults.dropped_no_buffer", stats.faults_dropped_no_buffer.was());
    out.add(prefix, "faults.dropped_rate", stats.faults_dropped_rate.was());
    out.add(prefix, "faults.lost", faults_lost);
    out.add(prefix, "resets", stats.resets.was());
    out.add(prefix, "table.domains", usage.domains);
    out.add(prefix, "table.mappings", usage.mappings);
    out.add(prefix, "table.endpoints", usage.endpoints);
    out.add(prefix, "table.nodes_used", usage.nodes_used);
    out.add(prefix, "table.trees_waiting", usage.trees_waiting);
    out.add(prefix, "table.nodes_free", usage.nodes_free);
}

void add_poller(Counters& out, unsigned lcore, const poll::Poller::Stats& stats) {
    const std::string prefix = fmt::format("lcore.{}", lcore);
    out.heading(fmt::format("lcore {}", lcore));
    out.add(prefix, "busy_rounds", stats.busy_rounds);
    out.add(prefix, "idle_rounds", stats.idle_rounds);
    out.add(prefix, "sleeps", stats.sleeps);
}

}  // namespace viommu::app
