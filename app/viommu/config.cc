// SPDX-License-Identifier: BSD-3-Clause
// From TOML to structures, one table at a time. What concerns several tables is in config_rules.cc.
#include "config.hh"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "config_net.hh"
#include "config_regions.hh"
#include "config_rules.hh"
#include "config_values.hh"
#include "toml_section.hh"
#include "units.hh"

namespace viommu::app {
namespace {

constexpr unsigned kDefaultLcore = 1;

void read_page_sizes(const Section& s, device::Config& device) {
    constexpr std::string_view kExample = "[\"4K\", \"2M\", \"1G\"]";
    const auto sizes = s.strings("page_sizes", kExample);
    if (!sizes) return;
    uint64_t mask = 0;
    for (const auto& text : *sizes) {
        const auto bytes = parse_size(text);
        if (!bytes || !std::has_single_bit(*bytes) || *bytes < 4096) {
            s.problem("page_sizes",
                      fmt::format("'{}' is not a power of two of 4K or more; write e.g. "
                                  "page_sizes = {}",
                                  text, kExample));
            return;
        }
        mask |= *bytes;
    }
    if (mask == 0)
        s.problem("page_sizes", fmt::format("names no size; write e.g. page_sizes = {}, or leave "
                                            "the key out for 4K and every larger power of two",
                                            kExample));
    else if ((mask & -mask) > uint64_t{1} << 30)
        s.problem("page_sizes", fmt::format("the smallest, {}, is above 1G, the most that a table "
                                            "can have; write e.g. page_sizes = {}",
                                            format_size(mask & -mask), kExample));
    else
        device.page_size_mask = mask;
}

void read_input_range(const Section& s, device::Config& device, uint64_t granule) {
    constexpr std::string_view kExample = "{ first = 0x1000000, last = 0x3fffffff }";
    const auto range = s.table("input_range", kExample);
    if (!range) return;
    range->check_keys({"first", "last"});
    if (const auto bounds = read_address_range(s, *range, "input_range", granule))
        device.input_range = *bounds;
}

void read_domain_range(const Section& s, device::Config& device) {
    const auto range = s.table("domain_range", "{ first = 0, last = 65535 }");
    if (!range) return;
    range->check_keys({"first", "last"});
    const auto first = range->number("first", 0, UINT32_MAX, "0");
    const auto last = range->number("last", 0, UINT32_MAX, "65535");
    if (first) device.domain_first = uint32_t(*first);
    if (last) device.domain_last = uint32_t(*last);
    if (device.domain_first > device.domain_last)
        s.problem("domain_range", fmt::format("is reversed: first {} is above last {}; swap them",
                                              device.domain_first, device.domain_last));
}

void read_bypass(const Section& s, device::Config& device) {
    device.bypass = s.boolean("bypass").value_or(device.bypass);
    device.legacy_bypass = s.boolean("legacy_bypass").value_or(false);
    if (device.legacy_bypass && s.has("bypass"))
        s.problem("bypass",
                  "has no effect with legacy_bypass = true, where the driver decides by accepting "
                  "the feature bit; leave one of the two out");
}

void read_quotas(const Section& s, device::Config& device) {
    if (const auto n = s.number("max_domains", 1, 1u << 20, "1024"))
        device.max_domains = uint32_t(*n);
    if (const auto n = s.number("max_mappings", 1, uint64_t{1} << 40, "1048576"))
        device.max_mappings = *n;
    if (const auto n = s.number("faults_per_second", 0, UINT32_MAX, "1000"))
        device.faults_per_second = uint32_t(*n);
    if (const auto bytes = s.size("arena", "\"64M\"")) {
        if (*bytes < 1u << 20)
            s.problem("arena",
                      "is less than 1M, too little for a table; write e.g. arena = \"64M\"");
        device.arena_bytes = *bytes;
    }
}

void read_hugepages(const Section& s, device::Config& device) {
    const auto text = s.string("hugepages", "\"auto\"").value_or("auto");
    if (text == "always")
        device.hugepages = table::Hugepages::kAlways;
    else if (text == "never")
        device.hugepages = table::Hugepages::kNever;
    else if (text != "auto")
        s.problem("hugepages",
                  "is no choice of pages; write \"auto\", \"always\" or \"never\"");
}

void read_endpoints(const Section& s, Guest& guest, Rules& rules, uint64_t granule) {
    const std::string what = fmt::format("endpoint of guest '{}'", guest.name);
    const auto add = [&](const Section& from, std::string_view key, std::optional<EndpointId> id) {
        if (!id) return;
        rules.claim(what, format_bdf(*id), from.place(key));
        guest.device.endpoints.push_back(*id);
        if (auto own = read_own_regions(from, guest.device, granule); !own.empty())
            guest.device.endpoint_reserved.try_emplace(*id, std::move(own));
    };
    for (const Section& e : s.tables("endpoint", "[[guest.endpoint]] id = \"0000:00:05.0\"")) {
        e.check_keys({"id", "reserved"});
        add(e, "id", read_endpoint(e, "id"));
    }
    for (const Section& n : s.tables("net", "[[guest.net]] name = \"net0\"")) {
        const Net net = read_net(n, guest, rules);
        if (n.has("endpoint") && parse_bdf(n.string("endpoint", "").value_or("")))
            add(n, "endpoint", net.endpoint);
        guest.nets.push_back(net);
    }
    if (guest.device.endpoints.empty() && !s.has("endpoint") && !s.has("net"))
        s.problem("",
                  "has no endpoint, so the IOMMU would serve nothing; add a [[guest.net]] or "
                  "a [[guest.endpoint]]");
}

std::optional<Readers> read_readers(const Section& s, Rules& rules) {
    constexpr std::string_view kExample = "\"/run/dpdk-viommu/vm0/readers.sock\"";
    Readers readers;
    readers.socket = checked_socket(s, "readers", s.string("readers", kExample), kExample);
    if (const auto ms = s.number("reader_stall_ms", 1, 3'600'000, "1000"))
        readers.stall = std::chrono::milliseconds(*ms);
    const auto stalled = s.string("stalled_readers", "\"kill\"").value_or("kill");
    if (stalled == "disconnect")
        readers.stalled = share::StalledReaders::kDisconnect;
    else if (stalled != "kill")
        s.problem("stalled_readers", "is nothing that can be done to them; write \"kill\" or "
                                     "\"disconnect\"");
    for (const std::string_view key : {"reader_stall_ms", "stalled_readers"})
        if (s.has(key) && !s.has("readers"))
            s.problem(key, fmt::format("has no effect without a socket for readers; write e.g. "
                                       "readers = {}, or leave the key out",
                                       kExample));
    if (!s.has("readers")) return std::nullopt;
    rules.claim("socket", readers.socket, s.place("readers"));
    return readers;
}

Guest read_guest(const Section& s, Rules& rules) {
    s.check_keys({"name", "socket", "lcore", "page_sizes", "input_range", "domain_range", "bypass",
                  "legacy_bypass", "dirty_log", "msi", "reserved", "max_domains", "max_mappings",
                  "arena", "hugepages", "faults_per_second", "readers", "reader_stall_ms",
                  "stalled_readers", "endpoint", "net"});
    Guest guest;
    guest.name = read_name(s, "\"vm0\"");
    guest.socket = read_socket(s, "\"/run/dpdk-viommu/vm0/iommu.sock\"");
    rules.claim("guest name", guest.name, s.place("name"));
    rules.claim("socket", guest.socket, s.place("socket"));
    guest.lcore = read_lcore(s).value_or(Lcore{kDefaultLcore, s.place("lcore")});
    read_page_sizes(s, guest.device);
    const uint64_t granule = guest.device.page_size_mask & -guest.device.page_size_mask;
    read_input_range(s, guest.device, granule);
    read_domain_range(s, guest.device);
    read_bypass(s, guest.device);
    guest.dirty_log = s.boolean("dirty_log").value_or(false);
    read_common_regions(s, guest.device, granule);
    read_quotas(s, guest.device);
    guest.readers = read_readers(s, rules);
    read_hugepages(s, guest.device);
    read_endpoints(s, guest, rules, granule);
    return guest;
}

Config read_config(const Section& root, Rules& rules) {
    root.check_keys({"poll", "eal", "guest"});
    Config config;
    const auto policy = root.string("poll", "\"adaptive\"").value_or("adaptive");
    if (policy == "busy")
        config.poll = poll::Policy::kBusy;
    else if (policy != "adaptive")
        root.problem("poll", "is no poll policy; write poll = \"adaptive\" or poll = \"busy\"");
    config.eal = root.strings("eal", "[\"--no-pci\", \"--lcores\", \"0@0,1@1\"]");
    for (const Section& s : root.tables("guest", "[[guest]] name = \"vm0\""))
        config.guests.push_back(read_guest(s, rules));
    if (!root.has("guest"))
        root.problem("", "there is no guest, so nothing to serve; add a [[guest]]");
    return config;
}

}  // namespace

tl::expected<Config, Problems> parse_config(std::string_view text, const std::string& file) try {
    const toml::table root = toml::parse(text, file);
    ProblemList problems;
    Rules rules(problems);
    Config config = read_config(Section(root, file, "", problems), rules);
    rules.resolve_peers(config);
    if (!problems.empty()) return tl::unexpected(problems.sorted());
    return config;
} catch (const toml::parse_error& e) {
    const std::string what(e.description());
    const bool too_big = what.find("representable") != what.npos;
    return tl::unexpected(Problems{
        fmt::format("{}:{}: is not TOML: {}; {}", file, e.source().begin.line, what,
                    too_big ? "write integers above 2^63-1 in quotes, e.g. \"0xffffffffffffffff\""
                            : "see https://toml.io for the syntax")});
}

tl::expected<Config, Problems> load_config(const std::string& path) {
    std::string text;
    const std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path.c_str(), "rb"), fclose);
    char piece[4096];
    for (size_t n; file && (n = fread(piece, 1, sizeof piece, file.get())) > 0;)
        text.append(piece, n);
    if (!file || ferror(file.get()))
        return tl::unexpected(Problems{fmt::format(
            "{}: cannot be read: {}; give the path of a configuration file with --config", path,
            std::strerror(errno))});
    return parse_config(text, path);
}

}  // namespace viommu::app
