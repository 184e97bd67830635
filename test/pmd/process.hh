// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "viommu_base.hh"

namespace viommu::pmd {

/// A program of our own; killed with its owner.
/// Threads: one.
class Process {
  public:
    /// Start it, its output going to the file `log`.
    static Result<Process> start(std::vector<std::string> arguments, std::string log);
    Process(Process&& other) noexcept;
    Process& operator=(Process&&) = delete;
    ~Process();

    /// Until it has said `text` `times` times since it was started. Errors: it does not, or has
    /// died, with what it said instead.
    Result<void> wait_for(const std::string& text, unsigned times = 1);
    /// A line for its standard input.
    Result<void> type(const std::string& line);
    /// `line`, and what it says to that, up to `last`.
    Result<std::string> ask(const std::string& line, const std::string& last);
    std::string said() const;
    bool running();
    void signal(int number) const;
    /// SIGKILL.
    void kill();
    /// A signal that asks it to end. Errors: it did not, or not with status 0.
    Result<void> stop(int number);

  private:
    Process(pid_t pid, Fd input, std::string log)
        : pid_(pid), input_(std::move(input)), log_(std::move(log)) {}

    pid_t pid_;
    Fd input_;
    std::string log_;
    int status_ = 0;
};

/// f() until it is true, or the time for slow machines and sanitizers is up.
template <class F>
bool eventually(F&& f, std::chrono::seconds limit = std::chrono::seconds(60));
void nap();

template <class F>
bool eventually(F&& f, std::chrono::seconds limit) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!f()) {
        if (std::chrono::steady_clock::now() > end) return false;
        nap();
    }
    return true;
}

}  // namespace viommu::pmd
