// SPDX-License-Identifier: BSD-3-Clause
#include "serve.hh"

#include <rte_eal.h>

#include <cstdio>

#include "daemon.hh"
#include "eal.hh"
#include "limits.hh"
#include "report.hh"
#include "signals.hh"

namespace viommu::app {
namespace {

/// How often quotas and devices are looked at.
constexpr std::chrono::milliseconds kWatchInterval{1000};

int give_up(const Problems& problems, int status) {
    for (const auto& p : problems) fmt::print(stderr, "dpdk-viommu: {}\n", p);
    return status;
}

/// What the operator asked for: the file, and the arguments that override it.
tl::expected<Config, Problems> requested(const ServeCommand& command) {
    auto config = load_config(command.config);
    if (!config) return config;
    if (command.poll) config->poll = *command.poll;
    if (command.eal) config->eal = command.eal;
    return config;
}

/// One device for each guest. This needs no EAL, so that --check does it too.
tl::expected<Devices, Problems> make_devices(const Config& config) {
    Devices devices;
    Problems problems;
    for (const Guest& guest : config.guests) {
        auto device = device::Device::create(guest.device);
        if (device)
            devices.push_back(std::move(*device));
        else
            problems.push_back(fmt::format("guest {}: {}", guest.name, device.error().message));
    }
    if (!problems.empty()) return tl::unexpected(problems);
    return devices;
}

std::string description(const Config& config, const Devices& devices) {
    std::vector<uint64_t> features;
    for (const auto& device : devices) features.push_back(device->features());
    return describe(config, features);
}

void watch(Daemon& daemon, const Signals& signals) {
    for (;;) {
        switch (signals.wait(kWatchInterval)) {
            case Signals::What::kEnd:
                return;
            case Signals::What::kReport:
                fmt::print("{}", daemon.counters());
                std::fflush(stdout);
                break;
            case Signals::What::kNone:
                break;
        }
        daemon.watch_devices();
        for (const auto& warning : daemon.warnings())
            fmt::print(stderr, "dpdk-viommu: warning: {}\n", warning);
    }
}

int serve_on_eal(const Config& config, Devices devices, const std::string& description,
                 const Signals& signals) {
    if (const auto problems = check_lcores(config); !problems.empty())
        return give_up(problems, kExitWrongConfig);
    auto daemon = Daemon::create(config, std::move(devices));
    if (!daemon) return give_up({daemon.error().message}, kExitCannotServe);
    fmt::print("{}\ndpdk-viommu: ready\n", description);
    std::fflush(stdout);
    watch(**daemon, signals);
    (*daemon)->stop();
    fmt::print("{}", (*daemon)->counters());
    std::fflush(stdout);
    return kExitServed;
}

int serve(const Config& config, Devices devices, const std::string& description) {
    const Signals signals;
    if (auto raised = raise_fd_limit(config); !raised)
        return give_up({raised.error().message}, kExitCannotServe);
    const auto arguments =
        config.eal ? *config.eal : default_eal_arguments(lcores_of(config), this_machine());
    if (auto started = start_eal(arguments); !started)
        return give_up({started.error().message}, kExitCannotServe);
    const int status = serve_on_eal(config, std::move(devices), description, signals);
    rte_eal_cleanup();
    return status;
}

}  // namespace

int run_serve(const ServeCommand& command) {
    const auto config = requested(command);
    if (!config) return give_up(config.error(), kExitWrongConfig);
    if (const auto problem = too_many_sockets(*config))
        return give_up({*problem}, kExitWrongConfig);
    auto devices = make_devices(*config);
    if (!devices) return give_up(devices.error(), kExitWrongConfig);
    const std::string text = description(*config, *devices);
    if (command.check) {
        fmt::print("{}\ndpdk-viommu: {} is right; nothing was started\n", text, command.config);
        return kExitServed;
    }
    return serve(*config, std::move(*devices), text);
}

}  // namespace viommu::app
