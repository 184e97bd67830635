// SPDX-License-Identifier: BSD-3-Clause
#include "eal.hh"

#include <rte_config.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "join.hh"

namespace viommu::app {
namespace {

bool hugepages_are_free() {
    std::error_code error;
    for (const auto& size :
         std::filesystem::directory_iterator("/sys/kernel/mm/hugepages", error)) {
        unsigned long pages = 0;
        std::ifstream(size.path() / "free_hugepages") >> pages;
        if (pages > 0) return true;
    }
    return false;
}

std::string list_of_workers() {
    std::vector<unsigned> workers;
    unsigned lcore;
    RTE_LCORE_FOREACH_WORKER(lcore) workers.push_back(lcore);
    return workers.empty() ? "none"
                           : join(workers, ", ", [](unsigned id) { return std::to_string(id); });
}

void check_lcore(Problems& problems, const Lcore& lcore) {
    const auto add = [&](std::string_view what) {
        problems.push_back(fmt::format("{} = {}: {}; the EAL's worker lcores are: {}",
                                       to_string(lcore.place), lcore.id, what, list_of_workers()));
    };
    if (lcore.id == rte_get_main_lcore())
        add("is the main lcore, which waits for signals and cannot poll");
    else if (!rte_lcore_is_enabled(lcore.id))
        add("is no lcore of the EAL's; name another, or add it to --lcores");
}

}  // namespace

Machine this_machine() {
    Machine machine;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &set)) machine.cpus.push_back(cpu);
    if (machine.cpus.empty()) machine.cpus.push_back(0);
    machine.hugepages = hugepages_are_free();
    machine.process = getpid();
    return machine;
}

std::vector<std::string> default_eal_arguments(std::span<const unsigned> lcores,
                                               const Machine& machine) {
    unsigned main = 0;
    while (std::find(lcores.begin(), lcores.end(), main) != lcores.end()) main++;
    const auto& cpus = machine.cpus;
    const size_t first = cpus.size() > lcores.size() ? 1 : 0;  // leave one to the main lcore
    std::string map = fmt::format("{}@{}", main, cpus[0]);
    for (size_t i = 0; i < lcores.size(); i++)
        map += fmt::format(",{}@{}", lcores[i], cpus[(first + i) % cpus.size()]);

    std::vector<std::string> out = {"--no-pci",
                                    "--lcores",
                                    map,
                                    "--main-lcore",
                                    std::to_string(main),
                                    fmt::format("--file-prefix=dpdk-viommu-{}", machine.process)};
    if (machine.hugepages)
        out.push_back("--in-memory");
    else  // DPDK 22.11 refuses --no-huge with --in-memory
        out.insert(out.end(), {"--no-huge", "--no-shconf", "-m", "256"});
    return out;
}

Result<void> start_eal(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "dpdk-viommu");
    std::vector<char*> argv;
    for (auto& a : arguments) argv.push_back(a.data());
    argv.push_back(nullptr);
    if (rte_eal_init(int(arguments.size()), argv.data()) >= 0) return {};
    return fail(
        "the EAL does not start with {}: {}; see its messages above, and correct 'eal' or "
        "--eal",
        join(std::span(arguments).subspan(1), " "), rte_strerror(rte_errno));
}

Problems check_lcores(const Config& config) {
    Problems problems;
    for (const Guest& guest : config.guests) {
        check_lcore(problems, guest.lcore);
        for (const Net& net : guest.nets)
            if (net.lcores_given)
                for (const Lcore& lcore : net.lcores) check_lcore(problems, lcore);
    }
    return problems;
}

}  // namespace viommu::app
