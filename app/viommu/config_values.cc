// SPDX-License-Identifier: BSD-3-Clause
#include "config_values.hh"

#include <algorithm>
#include <cctype>

#include "units.hh"
#include "unix_socket.hh"

namespace viommu::app {
namespace {

constexpr unsigned kMaxLcore = 127;  // RTE_MAX_LCORE - 1 in every distribution's DPDK

}  // namespace

std::string read_name(const Section& s, std::string_view example) {
    auto name = s.required_string("name", example);
    if (!name) return {};
    const bool fit = std::all_of(name->begin(), name->end(), [](unsigned char c) {
        return std::isalnum(c) || c == '-' || c == '_';
    });
    if (!fit)
        s.problem("name",
                  fmt::format("has more than letters, digits, '-' and '_'; write e.g. name = {}",
                              example));
    return *name;
}

std::string checked_socket(const Section& s, std::string_view key,
                           const std::optional<std::string>& path, std::string_view example) {
    if (!path) return {};
    if (path->size() > kMaxSocketPath)
        s.problem(key, fmt::format("is {} bytes long and a socket's path may have {}; "
                                   "choose a shorter directory",
                                   path->size(), kMaxSocketPath));
    if (!path->starts_with('/'))
        s.problem(key, fmt::format("is not an absolute path; write e.g. {} = {}", key, example));
    return *path;
}

std::string read_socket(const Section& s, std::string_view example) {
    return checked_socket(s, "socket", s.required_string("socket", example), example);
}

std::optional<EndpointId> read_endpoint(const Section& s, std::string_view key) {
    auto text = s.required_string(key, "\"0000:00:04.0\"");
    if (!text) return std::nullopt;
    auto id = parse_bdf(*text);
    if (id) return *id;
    s.problem(key, id.error().message);
    return std::nullopt;
}

std::optional<Lcore> read_lcore(const Section& s) {
    auto id = s.number("lcore", 0, kMaxLcore, "1");
    if (!id) return std::nullopt;
    return Lcore{unsigned(*id), s.place("lcore")};
}

std::vector<Lcore> read_lcores(const Section& s) {
    std::vector<Lcore> lcores;
    for (const uint64_t id : s.numbers("lcore", 0, kMaxLcore, "1", "[1, 2]"))
        lcores.push_back({unsigned(id), s.place("lcore")});
    return lcores;
}

}  // namespace viommu::app
