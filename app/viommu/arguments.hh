// SPDX-License-Identifier: BSD-3-Clause
/// The command line.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "viommu_base.hh"
#include "viommu_poll.hh"

namespace viommu::app {

inline constexpr const char* kDefaultConfig = "/etc/dpdk-viommu.toml";

/// Serve what a configuration file asks for, or say what that is.
struct ServeCommand {
    std::string config = kDefaultConfig;
    bool check = false;
    std::optional<poll::Policy> poll;             ///< instead of the file's
    std::optional<std::vector<std::string>> eal;  ///< instead of the file's
};

/// Write an ACPI VIOT.
struct ViotCommand {
    EndpointId iommu = 0;
    std::vector<EndpointId> endpoints;
    bool body = false;
    std::optional<std::string> output;  ///< absent: standard output
};

/// Print a text and exit.
struct PrintCommand {
    std::string text;
    int exit_status = 0;  ///< of 0 the text is for standard output, else for standard error
};

using Command = std::variant<ServeCommand, ViotCommand, PrintCommand>;

/// What the arguments ask for. Everything after "--eal" is the EAL's.
Command parse_arguments(int argc, const char* const* argv);

}  // namespace viommu::app
