// SPDX-License-Identifier: BSD-3-Clause
#include "arguments.hh"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#ifndef VIOMMU_VERSION
#error "the build defines VIOMMU_VERSION"
#endif

namespace viommu::app {
namespace {

constexpr const char* kDescription =
    "Serves virtio-iommu devices over vhost-user, and virtio-net ports that are behind them.";

constexpr const char* kFooter =
    "--eal ARGS...  Arguments for DPDK's EAL instead of the configuration's 'eal';\n"
    "               takes the rest of the command line.\n"
    "\n"
    "Signals: SIGUSR1 prints all counters; SIGINT and SIGTERM print them and end the daemon.\n"
    "Exit status: 0 ended by a signal, or the check passed; 1 could not serve; 2 wrong arguments\n"
    "or configuration.\n"
    "\n"
    "Examples:\n"
    "  dpdk-viommu --config vm.toml --check\n"
    "  dpdk-viommu --config vm.toml --eal --no-pci --lcores 0@0,1@1 --no-huge -m 256\n"
    "  dpdk-viommu viot --iommu 0000:00:03.0 --endpoint 0000:00:04.0 --body --output viot.body\n"
    "\n"
    "The configuration's keys: dpdk-viommu(1), doc/configuration.md";

constexpr const char* kViotFooter =
    "QEMU:  -acpitable sig=VIOT,data=FILE takes the table without its ACPI header: --body\n"
    "Linux: the endpoint IDs are segment << 16 | bus << 8 | device << 3 | function, as the\n"
    "       configuration's 'endpoint' keys are.";

/// What was given to a PCI address option, or why it is none.
std::string check_bdf(std::string& text) {
    const auto id = parse_bdf(text);
    return id ? std::string() : id.error().message;
}

struct Parsed {
    ServeCommand serve;
    ViotCommand viot;
    std::string policy, iommu, output;
    std::vector<std::string> endpoints;
};

void add_serve_options(CLI::App& app, Parsed& parsed) {
    app.add_option("-c,--config", parsed.serve.config, "Configuration file (TOML)")
        ->type_name("FILE")
        ->capture_default_str();
    app.add_flag("--check", parsed.serve.check,
                 "Check the configuration, print what would be served, and exit");
    app.add_option("--poll", parsed.policy,
                   "Poll policy instead of the configuration's: busy never sleeps,\n"
                   "adaptive sleeps when there is nothing to do")
        ->type_name("POLICY")
        ->check(CLI::IsMember({"busy", "adaptive"}));
    app.set_version_flag("--version", "dpdk-viommu " VIOMMU_VERSION);
    app.footer(kFooter);
}

CLI::App* add_viot_command(CLI::App& app, Parsed& parsed) {
    auto* viot = app.add_subcommand(
        "viot", "Write the ACPI table that tells a guest which devices are behind the IOMMU");
    const CLI::Validator bdf(check_bdf, "BDF", "bdf");
    viot->add_option("--iommu", parsed.iommu, "PCI address of the virtio-iommu, e.g. 0000:00:03.0")
        ->required()
        ->check(bdf);
    viot->add_option("--endpoint", parsed.endpoints,
                     "PCI address of a device behind it; may be given several times")
        ->required()
        ->check(bdf);
    viot->add_flag("--body", parsed.viot.body, "Leave the 36-byte ACPI header out");
    viot->add_option("--output", parsed.output, "File to write; standard output without it")
        ->type_name("FILE");
    viot->footer(kViotFooter);
    return viot;
}

PrintCommand print_of(const CLI::App& app, const CLI::ParseError& e) {
    std::ostringstream out, err;
    const int status = app.exit(e, out, err);
    if (status == 0) return {out.str(), 0};
    return {fmt::format("dpdk-viommu: {}\n", e.what()) + "Run with --help for the options.\n", 2};
}

}  // namespace

Command parse_arguments(int argc, const char* const* argv) {
    std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
    Parsed parsed;
    // EAL's arguments look like options, so they are taken away before CLI11 looks at the rest.
    if (const auto eal = std::find(words.begin(), words.end(), "--eal"); eal != words.end()) {
        parsed.serve.eal.emplace(eal + 1, words.end());
        words.erase(eal, words.end());
    }
    CLI::App app(kDescription, "dpdk-viommu");
    add_serve_options(app, parsed);
    const auto* viot = add_viot_command(app, parsed);
    try {
        std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
        app.parse(std::move(words));
    } catch (const CLI::ParseError& e) {
        return print_of(app, e);
    }
    if (viot->parsed()) {
        if (parsed.serve.eal)
            return PrintCommand{"dpdk-viommu: viot does not start the EAL; leave --eal out\n", 2};
        parsed.viot.iommu = parse_bdf(parsed.iommu).value();
        for (const auto& text : parsed.endpoints)
            parsed.viot.endpoints.push_back(parse_bdf(text).value());
        if (!parsed.output.empty()) parsed.viot.output = parsed.output;
        return parsed.viot;
    }
    if (parsed.policy == "busy") parsed.serve.poll = poll::Policy::kBusy;
    if (parsed.policy == "adaptive") parsed.serve.poll = poll::Policy::kAdaptive;
    return parsed.serve;
}

}  // namespace viommu::app
