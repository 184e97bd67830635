// SPDX-License-Identifier: BSD-3-Clause
/// Another process, by what its socket says of it. Private to lib/share.
#pragma once

#include <sys/types.h>

#include <string>

#include "viommu_base.hh"

namespace viommu::share {

/// The process that connected a socket, by a descriptor that never comes to mean another one.
class PeerProcess {
  public:
    /// Of whoever called connect(). Errors: not this user's nor root's; the kernel does not tell.
    static Result<PeerProcess> of(int socket);

    pid_t pid() const { return pid_; }
    /// Readable when the process has ended; -1 when it cannot be watched (it lives in a PID
    /// namespace that is not below ours).
    int fd() const { return fd_.get(); }
    /// SIGKILL. 0, or why not (errno).
    int kill() const noexcept;
    /// "1234 (name)", for messages.
    std::string text() const;

  private:
    PeerProcess(pid_t pid, Fd fd) : pid_(pid), fd_(std::move(fd)) {}
    pid_t pid_;
    Fd fd_;
};

}  // namespace viommu::share
