// SPDX-License-Identifier: BSD-3-Clause
#include "machine.hh"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <pthread.h>
#include <sched.h>
#include <sys/utsname.h>

#include <cstdlib>
#include <ctime>
#include <fstream>

#include "clock.hh"
#include "perf_commit.hh"

namespace viommu::perf {
namespace {

/// What follows "key" and a colon in the first line that begins with it; empty: no such line.
std::string field(const char* path, std::string_view key) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        if (line.rfind(key, 0) != 0) continue;
        const size_t colon = line.find(':');
        const size_t from = line.find_first_not_of(" \t", colon + 1);
        return colon == std::string::npos || from == std::string::npos ? "" : line.substr(from);
    }
    return "";
}

std::string first_line(const char* path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

uint64_t number(const std::string& text) { return std::strtoull(text.c_str(), nullptr, 10); }

std::string compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "g++ " __VERSION__;
#endif
}

}  // namespace

Machine describe_machine() {
    Machine m;
    m.cpu = field("/proc/cpuinfo", "model name");
    if (m.cpu.empty()) m.cpu = "unknown CPU";
    // Hypervisors shorten the name; family and model tell generations apart.
    const std::string family = field("/proc/cpuinfo", "cpu family");
    if (!family.empty())
        m.cpu += fmt::format(" (family {}, model {})", family, field("/proc/cpuinfo", "model\t"));
    if (field("/proc/cpuinfo", "flags").find(" hypervisor") != std::string::npos)
        m.hypervisor = "in a virtual machine";
    utsname names{};
    if (uname(&names) == 0) m.kernel = fmt::format("{} {}", names.sysname, names.release);
    m.compiler = compiler();
#ifndef NDEBUG
    m.compiler += ", assertions on";
#endif
#ifndef __OPTIMIZE__
    m.compiler += ", NOT OPTIMIZED";
#endif
    m.commit = kCommit;
    m.date = fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(std::time(nullptr)));
    m.governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu)
            if (CPU_ISSET(cpu, &allowed)) m.cpus.push_back(cpu);
    if (getloadavg(&m.load, 1) != 1) m.load = 0;
    m.tsc_mhz = Clock::mhz();
    const std::string hugepages = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
    m.hugepages_free = number(first_line((hugepages + "free_hugepages").c_str()));
    m.hugepages_total = number(first_line((hugepages + "nr_hugepages").c_str()));
    return m;
}

std::string as_text(const Machine& m) {
    std::string out;
    const auto line = [&](const char* key, const std::string& value) {
        out += fmt::format("{:<11}{}\n", key, value);
    };
    line("CPU", fmt::format("{}, {} cores{}{}, TSC {:.0f} MHz, governor {}", m.cpu, m.cpus.size(),
                            m.hypervisor.empty() ? "" : " ", m.hypervisor, m.tsc_mhz,
                            m.governor.empty() ? "unknown" : m.governor));
    line("load",
         fmt::format("{:.2f}{}", m.load,
                     m.busy() ? "   WARNING: the machine is busy; figures are too high" : ""));
    line("kernel", m.kernel);
    line("compiler", m.compiler);
    line("commit", m.commit);
    line("hugepages", m.hugepages_total == 0 ? "none"
                                             : fmt::format("{} of {} free, 2 MiB each",
                                                           m.hugepages_free, m.hugepages_total));
    line("date", m.date);
    return out;
}

nlohmann::ordered_json as_json(const Machine& m) {
    return {{"cpu", m.cpu},
            {"cores", m.cpus.size()},
            {"virtual", !m.hypervisor.empty()},
            {"tsc_mhz", m.tsc_mhz},
            {"governor", m.governor.empty() ? "unknown" : m.governor},
            {"load", m.load},
            {"busy", m.busy()},
            {"kernel", m.kernel},
            {"compiler", m.compiler},
            {"commit", m.commit},
            {"hugepages_free", m.hugepages_free},
            {"hugepages_total", m.hugepages_total},
            {"date", m.date}};
}

bool pin_to(unsigned cpu) noexcept {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0;
}

}  // namespace viommu::perf
