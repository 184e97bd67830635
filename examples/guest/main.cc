// SPDX-License-Identifier: BSD-3-Clause
/// viommu-guest: a guest in user space that uses a daemon once from end to end.
///
/// It finds its IOMMU and one or two virtio-net devices behind it at their vhost-user sockets,
/// attaches them, passes packets from the first to the second through the daemon and compares every
/// one, sends one from memory that it has unmapped, expects to be told, and leaves.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>

#include "report.hh"

namespace viommu::example {
namespace {

using namespace guest;

struct Arguments {
    GuestOptions guest;
    std::string net[2], endpoint[2];
    uint64_t packets = 1'000'000;
    uint32_t bytes = 64;
    uint64_t requests = 1000;
    uint64_t timeout_ms = 5000;
    BufferMaps maps = BufferMaps::kOneMapping;
    uint32_t ring_size = 256;
    bool packed = false, event_idx = false, in_order = false, indirect = false;
    bool json = false;
};

/// An option of which every value has a name.
template <class T>
void add_choice(CLI::App& app, const std::string& name, T& value, std::map<std::string, T> values,
                const std::string& help) {
    std::vector<std::string> names;
    for (const auto& [text, _] : values) names.push_back(text);
    app.add_option_function<std::string>(
           name, [&value, values](const std::string& text) { value = values.at(text); }, help)
        ->check(CLI::IsMember(names))
        ->type_name("");
}

void describe_arguments(CLI::App& app, Arguments& a) {
    app.add_option("--iommu", a.guest.iommu_socket, "vhost-user socket of the IOMMU")
        ->required()
        ->type_name("SOCKET");
    app.add_option("--net", a.net[0], "socket of the port that sends")
        ->required()
        ->type_name("SOCKET");
    app.add_option("--endpoint0", a.endpoint[0], "its PCI address, e.g. 0000:00:04.0")
        ->required()
        ->type_name("BDF");
    auto* peer = app.add_option("--net-peer", a.net[1], "socket of the port that receives")
                     ->type_name("SOCKET");
    app.add_option("--endpoint1", a.endpoint[1], "its PCI address")->type_name("BDF")->needs(peer);
    peer->needs("--endpoint1");
    app.add_option("--packets", a.packets, "how many to pass")->capture_default_str();
    app.add_option("--size", a.bytes, "bytes of each, without FCS")
        ->check(CLI::Range(kMinPacketBytes, kMaxPacketBytes))
        ->capture_default_str();
    app.add_option("--requests", a.requests, "MAPs and UNMAPs to time, one at a time")
        ->capture_default_str();
    add_choice<RingAddresses>(app, "--rings", a.guest.ring_addresses,
                              {{"uva", RingAddresses::kUva}, {"iova", RingAddresses::kIova}},
                              "what the VMM sends as ring addresses: iova (it knows the IOMMU), or "
                              "uva (it takes them for "
                              "guest-physical addresses; the default)");
    add_choice<BufferMaps>(app, "--maps", a.maps,
                           {{"once", BufferMaps::kOneMapping},
                            {"buffer", BufferMaps::kMappingPerBuffer},
                            {"packet", BufferMaps::kMappingPerPacket},
                            {"deferred", BufferMaps::kMappingPerPacketDeferred}},
                           "how packet buffers are mapped: once (all in one mapping; the default), "
                           "buffer (each once), "
                           "packet (each for every packet), "
                           "deferred (likewise, but unmapped in batches)");
    add_choice<Vmm>(app, "--vmm", a.guest.vmm,
                    {{"ch", Vmm::kCloudHypervisor}, {"qemu", Vmm::kQemu}},
                    "whose vhost-user to speak: Cloud Hypervisor's (the default) or QEMU's");
    app.add_option("--ring-size", a.ring_size,
                   "entries of the request queue and of each network queue; a power of two unless "
                   "--packed")
        ->check(CLI::Range(2u, wire::kMaxQueueSize))
        ->capture_default_str();
    app.add_flag("--packed", a.packed,
                 "use packed rings; an error where a device does not offer them");
    app.add_flag("--event-idx", a.event_idx, "say when to be signalled by index; likewise");
    app.add_flag("--in-order", a.in_order, "let buffers be returned in batches; likewise");
    app.add_flag("--indirect", a.indirect, "put descriptors into indirect tables; likewise");
    app.add_option("--timeout", a.timeout_ms, "for every answer, in milliseconds")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_flag("--json", a.json, "print the results as one JSON object");
}

/// What the arguments say about ports, in the words of the library.
Result<void> complete(Arguments& a) {
    a.guest.timeout = Milliseconds(a.timeout_ms);
    const uint64_t rings = (a.packed ? bit(wire::VIRTIO_F_RING_PACKED) : 0) |
                           (a.event_idx ? bit(wire::VIRTIO_F_EVENT_IDX) : 0) |
                           (a.in_order ? bit(wire::VIRTIO_F_IN_ORDER) : 0) |
                           (a.indirect ? bit(wire::VIRTIO_F_INDIRECT_DESC) : 0);
    a.guest.iommu.request_queue_size = uint16_t(a.ring_size);
    require(a.guest.iommu, rings);
    a.guest.iommu.layout.indirect = a.indirect;
    for (size_t i = 0; i < 2 && !a.net[i].empty(); ++i) {
        const auto endpoint = parse_bdf(a.endpoint[i]);
        if (!endpoint) return tl::unexpected(endpoint.error());
        PortOptions port{a.net[i], *endpoint};
        port.net.buffer_maps = a.maps;
        port.net.rx_queue_size = port.net.tx_queue_size = uint16_t(a.ring_size);
        port.net.max_buffers = 1024;
        require(port.net, rings);
        if (a.indirect) port.net.tx_layout = TxLayout::kIndirect;
        a.guest.ports.push_back(std::move(port));
    }
    return {};
}

/// One MAP and one UNMAP at a time: what a round trip costs when nothing shares it.
Result<void> time_requests(Guest& guest, uint64_t count) {
    const auto page = guest.memory().allocate(1);
    if (!page) return tl::unexpected(page.error());
    PagedDma& dma = guest.dma(0);
    for (uint64_t i = 0; i < count; ++i) {
        const auto at = dma.map(*page, kPageBytes, Access::kReadWrite);
        if (!at) return tl::unexpected(at.error());
        if (auto ok = dma.sync(); !ok) return ok;
        if (auto ok = dma.unmap(*at, kPageBytes); !ok) return ok;
        if (auto ok = dma.sync(); !ok) return ok;
    }
    guest.memory().release(*page);
    return {};
}

Result<std::string> run(Arguments& a) {
    if (auto ok = complete(a); !ok) return tl::unexpected(ok.error());
    auto created = Guest::create(a.guest);
    if (!created) return tl::unexpected(created.error());
    Guest& guest = **created;
    NetDriver* peer = guest.ports() > 1 ? &guest.port(1) : nullptr;
    const std::array<uint8_t, 6> broadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const Pattern pattern(guest.port(0).mac(), peer != nullptr ? peer->mac() : broadcast, a.bytes);

    if (auto ok = time_requests(guest, a.requests); !ok) return tl::unexpected(ok.error());
    auto passed = pass_packets(guest.port(0), peer, pattern, a.packets, a.guest.timeout);
    if (!passed) return tl::unexpected(passed.error());
    auto fault = provoke_fault(guest, pattern, a.guest.timeout);
    if (!fault) return tl::unexpected(fault.error());
    const Report report{a.bytes, *passed, 1, *fault};
    if (auto ok = guest.shut_down(); !ok) return tl::unexpected(ok.error());
    return a.json ? as_json(guest, report) : as_table(guest, report) + "OK\n";
}

}  // namespace
}  // namespace viommu::example

int main(int argc, char** argv) {
    viommu::example::Arguments arguments;
    CLI::App app{"A guest in user space: uses a dpdk-viommu daemon once, from end to end.",
                 "viommu-guest"};
    viommu::example::describe_arguments(app, arguments);
    CLI11_PARSE(app, argc, argv);
    const auto output = viommu::example::run(arguments);
    if (!output) {
        std::fprintf(stderr, "viommu-guest: %s\n", output.error().message.c_str());
        return 1;
    }
    std::fputs(output->c_str(), stdout);
    return 0;
}
