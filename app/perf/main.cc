// SPDX-License-Identifier: BSD-3-Clause
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <functional>

#include "options.hh"

namespace viommu::perf {

namespace {

using Scenario = Result<void> (*)(const Options&, Results&);

void describe_options(CLI::App& app, Options& o) {
    app.add_option("--samples", o.pace.samples, "samples of each subject")
        ->check(CLI::Range(3u, 100000u))
        ->capture_default_str();
    app.add_option("--seconds", o.pace.seconds,
                   "time for each set of subjects that are compared; fewer samples when it is up")
        ->check(CLI::Range(0.01, 3600.0))
        ->capture_default_str();
    auto* all = app.add_flag("--all", o.all, "every combination, not only those that say most");
    app.add_flag("--quick", o.pace.quick, "a few seconds in all, to see that it works")
        ->excludes(all);
    app.add_option("--cpus", o.cpus, "CPUs to use, the one that measures first")
        ->delimiter(',')
        ->type_name("A,B,...");
    app.add_option("--daemon", o.daemon, "requests: the dpdk-viommu to start; default: ours")
        ->type_name("PATH");
    app.add_option("--json", o.json, "write all figures")->type_name("FILE");
    app.add_option("--plot", o.plot, "write the plots")->type_name("FILE.svg");
}

/// What the command line left open.
Result<void> complete(Options& o, const Machine& machine) {
    if (o.cpus.empty()) o.cpus = machine.cpus;
    for (const unsigned cpu : o.cpus)
        if (std::ranges::find(machine.cpus, cpu) == machine.cpus.end())
            return fail("--cpus: CPU {} is not one that this process may use", cpu);
    if (o.pace.quick) {
        o.pace.samples = std::min(o.pace.samples, 5u);
        o.pace.seconds = std::min(o.pace.seconds, 0.3);
        o.pace.sample_ns = 0.1e6;
        o.pace.warm_ns = 0.2e6;
        o.pace.window_ns = 4e6;
    }
    if (!pin_to(o.cpus.front())) return fail("CPU {}: cannot be pinned to", o.cpus.front());
    return {};
}

Result<void> write_file(const std::string& path, const std::string& text) {
    std::ofstream file(path, std::ios::trunc);
    file << text;
    file.close();
    if (!file) return fail("{}: cannot be written", path);
    return {};
}

Result<void> run(const std::string& name, Scenario scenario, Options& options) {
    Clock::calibrate();
    Results results;
    results.scenario = name;
    results.machine = describe_machine();
    if (auto ok = complete(options, results.machine); !ok) return ok;
    std::fputs(as_text(results.machine).c_str(), stdout);
    if (auto ok = scenario(options, results); !ok) return ok;
    std::fputs(as_text(results.targets).c_str(), stdout);
    if (!options.json.empty())
        if (auto ok = write_file(options.json, as_json(results).dump(1) + "\n"); !ok) return ok;
    if (options.plot.empty()) return {};
    const std::string caption =
        fmt::format("dpdk-viommu-perf {}, medians with p10 .. p90; {}; commit {}", name,
                    results.machine.cpu, results.machine.commit);
    return write_file(options.plot, draw(results.charts, caption));
}

}  // namespace
}  // namespace viommu::perf

int main(int argc, char** argv) {
    using namespace viommu::perf;
    Options options;
    CLI::App app{"Measure dpdk-viommu, beside what others do, in one run.", "dpdk-viommu-perf"};
    app.require_subcommand(1);
    app.fallthrough();
    describe_options(app, options);
    struct Command {
        const char* name;
        const char* help;
        Scenario scenario;
    };
    constexpr Command kCommands[] = {
        {"translate", "find where an address lies", run_translate},
        {"table", "map, unmap, attach; wait for readers; memory", run_table},
        {"requests", "a guest, the daemon, and the ring between them", run_requests},
        {"net", "packets between a guest and its NIC, beside librte_vhost's", run_net},
    };
    for (const auto& c : kCommands) app.add_subcommand(c.name, c.help);
    CLI11_PARSE(app, argc, argv);
    for (const auto& c : kCommands) {
        if (!app.got_subcommand(c.name)) continue;
        const auto done = run(c.name, c.scenario, options);
        if (done) return 0;
        std::fprintf(stderr, "dpdk-viommu-perf: %s\n", done.error().message.c_str());
        return 1;
    }
    return 1;
}
