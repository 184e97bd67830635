// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

namespace viommu::perf {

/// The system calls of one thread, as the kernel counts them (tracepoint raw_syscalls:sys_enter).
class SyscallCounter {
  public:
    /// `thread`: 0 for the calling one. Nothing: the kernel does not allow it, or tracefs is not
    /// mounted.
    static std::optional<SyscallCounter> open(pid_t thread);
    SyscallCounter(SyscallCounter&& other) noexcept;
    SyscallCounter& operator=(SyscallCounter&&) = delete;
    ~SyscallCounter();

    /// Since open(). Is a system call itself, which counts.
    uint64_t count() const;

  private:
    explicit SyscallCounter(int fd) : fd_(fd) {}
    int fd_;
};

}  // namespace viommu::perf
