// SPDX-License-Identifier: BSD-3-Clause
/// Values that several tables of the configuration have. What is wrong with one has been said when
/// the function returns.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "toml_section.hh"

namespace viommu::app {

/// `name`, which becomes a part of counters and of "guest:<guest>/<net>".
std::string read_name(const Section& s, std::string_view example);

/// `path`, the value of `key`, if it can be a socket's.
std::string checked_socket(const Section& s, std::string_view key,
                           const std::optional<std::string>& path, std::string_view example);
/// `socket`, which is required.
std::string read_socket(const Section& s, std::string_view example);

std::optional<EndpointId> read_endpoint(const Section& s, std::string_view key);

/// `lcore` where it is one.
std::optional<Lcore> read_lcore(const Section& s);
/// `lcore` where it may be several; empty when the key is absent.
std::vector<Lcore> read_lcores(const Section& s);

}  // namespace viommu::app
