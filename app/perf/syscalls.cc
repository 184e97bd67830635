// SPDX-License-Identifier: BSD-3-Clause
#include "syscalls.hh"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <utility>

namespace viommu::perf {

std::optional<SyscallCounter> SyscallCounter::open(pid_t thread) {
    for (const char* root : {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}) {
        uint64_t id = 0;
        if (!(std::ifstream(std::string(root) + "/events/raw_syscalls/sys_enter/id") >> id))
            continue;
        perf_event_attr attributes{};
        attributes.size = sizeof attributes;
        attributes.type = PERF_TYPE_TRACEPOINT;
        attributes.config = id;
        const long fd =
            syscall(SYS_perf_event_open, &attributes, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
        if (fd >= 0) return SyscallCounter(int(fd));
    }
    return std::nullopt;
}

SyscallCounter::SyscallCounter(SyscallCounter&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)) {}

SyscallCounter::~SyscallCounter() {
    if (fd_ >= 0) close(fd_);
}

uint64_t SyscallCounter::count() const {
    uint64_t value = 0;
    return read(fd_, &value, sizeof value) == sizeof value ? value : 0;
}

}  // namespace viommu::perf
