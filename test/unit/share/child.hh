// SPDX-License-Identifier: BSD-3-Clause
/// A reader process that a test has started. exec, not only fork: sanitizers cannot follow the
/// child of a program that has threads.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "shared_memory.hh"

namespace viommu::share {

class Child {
  public:
    Child(const char* mode, const std::string& socket, unsigned endpoint,
          const SharedMapping& shared, unsigned number = 0) {
        const char* program = std::getenv("VIOMMU_READER_PROCESS");
        EXPECT_NE(program, nullptr) << "VIOMMU_READER_PROCESS must name the program";
        std::string args[] = {"reader-process",
                              mode,
                              socket,
                              std::to_string(endpoint),
                              std::to_string(shared.fd()),
                              std::to_string(number)};
        char* argv[] = {args[0].data(), args[1].data(), args[2].data(), args[3].data(),
                        args[4].data(), args[5].data(), nullptr};
        if (program == nullptr) return;
        EXPECT_EQ(posix_spawn(&pid_, program, nullptr, nullptr, argv, environ), 0);
    }
    Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
    Child& operator=(Child&&) = delete;
    ~Child() { kill(); }

    pid_t pid() const { return pid_; }
    /// The signal that ended it, or 0; nothing while it lives.
    std::optional<int> ended_by() {
        int status = 0;
        if (pid_ <= 0 || waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
        pid_ = -1;
        return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    }
    void kill() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }

  private:
    pid_t pid_ = -1;
};

}  // namespace viommu::share
