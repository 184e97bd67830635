// SPDX-License-Identifier: BSD-3-Clause
/// Fuzz target: the TOML configuration. Either problems that say where and what, or a configuration
/// that can be served: what it promises is looked at again here, and devices are made of it.
#include <set>
#include <string>

#include "app/viommu/config.hh"
#include "input.hh"
#include "viommu_device.hh"

namespace viommu::fuzz {
namespace {

constexpr const char* kFile = "fuzz.toml";

void check_problems(const app::Problems& problems) {
    require(!problems.empty(), "refused without a problem");
    for (const std::string& p : problems) {
        // "file:line: what is wrong; what would be right"
        const std::string place = std::string(kFile) + ":";
        require(p.starts_with(place), "does not say where: {}", p);
        const size_t digits = p.find_first_not_of("0123456789", place.size());
        require(digits != p.npos && digits > place.size() && p[digits] == ':',
                "does not say which line: {}", p);
        require(p.find(';') != p.npos, "does not say what would be right: {}", p);
    }
}

/// A device can be made of it. Sizes are cut to what a fuzzer can make thousands of times.
void check_device(const app::Guest& guest) {
    device::Config c = guest.device;
    require(c.arena_bytes >= 1u << 20, "arena of {} bytes", c.arena_bytes);
    c.arena_bytes = uint64_t{2} << 20;
    c.max_domains = std::min(c.max_domains, 1024u);
    if (c.endpoints.size() > 1024) return;
    const auto device = device::Device::create(c);
    require(device.has_value(), "a configuration that was accepted cannot be served: {}",
            device ? "" : device.error().message);
}

void check_config(const app::Config& config) {
    std::set<std::string> sockets, guests;
    const auto check_socket = [&](const std::string& path) {
        require(path.starts_with('/') && path.size() < 108, "socket '{}'", path);
        require(sockets.insert(path).second, "socket '{}' twice", path);
    };
    require(!config.guests.empty(), "no guest");
    size_t ports = 0;
    for (const app::Guest& guest : config.guests) {
        require(!guest.name.empty() && guests.insert(guest.name).second, "guest '{}'", guest.name);
        check_socket(guest.socket);
        const auto& ids = guest.device.endpoints;
        const std::set<EndpointId> endpoints(ids.begin(), ids.end());
        require(!ids.empty() && endpoints.size() == ids.size(), "endpoints of '{}'", guest.name);
        std::set<std::string> nets;
        for (const app::Net& net : guest.nets) {
            ++ports;
            require(!net.name.empty() && nets.insert(net.name).second, "net '{}'", net.name);
            check_socket(net.socket);
            require(endpoints.contains(net.endpoint), "net '{}' has no endpoint", net.name);
            require((net.mac[0] & 1) == 0, "net '{}' has a group address", net.name);
        }
        check_device(guest);
    }
    // Every port is in exactly one link.
    std::set<std::pair<size_t, size_t>> linked;
    for (const app::Link& link : app::links_of(config)) {
        require(linked.emplace(link.a.guest, link.a.net).second, "a port in two links");
        if (!link.b || (link.b->guest == link.a.guest && link.b->net == link.a.net)) continue;
        require(linked.emplace(link.b->guest, link.b->net).second, "a port in two links");
    }
    require(linked.size() == ports, "{} of {} ports are linked", linked.size(), ports);
    for (const unsigned lcore : app::lcores_of(config)) require(lcore <= 127, "lcore {}", lcore);
}

}  // namespace
}  // namespace viommu::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace viommu;
    if (size > 16384) return 0;  // a longer one takes time and says nothing new
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto config = app::parse_config(text, fuzz::kFile);
    if (config)
        fuzz::check_config(*config);
    else
        fuzz::check_problems(config.error());
    return 0;
}
