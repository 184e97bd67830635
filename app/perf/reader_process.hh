// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "viommu_base.hh"

namespace viommu::perf {

/// A process of its own that joins a daemon's readers and translates at full rate, in bursts.
class ReaderProcess {
  public:
    /// `pages`: mapped pages of `endpoint`, from IOVA `first` on, about which it asks.
    /// Errors: it could not join.
    static Result<ReaderProcess> start(const std::string& socket, EndpointId endpoint, Iova first,
                                       uint64_t pages, unsigned cpu);
    ReaderProcess(ReaderProcess&& other) noexcept;
    ReaderProcess& operator=(ReaderProcess&&) = delete;
    ~ReaderProcess();

    /// So far. Faults should be none: the pages stay mapped.
    uint64_t translations() const noexcept;
    uint64_t faults() const noexcept;

  private:
    /// In memory that both processes have.
    struct Shared {
        std::atomic<int> state{0};  // 0: starting, 1: at work, -1: it could not join
        std::atomic<uint64_t> translations{0}, faults{0};
    };
    ReaderProcess(pid_t pid, Shared* shared) : pid_(pid), shared_(shared) {}
    [[noreturn]] static void work(const std::string& socket, EndpointId endpoint, Iova first,
                                  uint64_t pages, unsigned cpu, Shared& shared);

    pid_t pid_;
    Shared* shared_;
};

}  // namespace viommu::perf
