// SPDX-License-Identifier: BSD-3-Clause
/// A guest that can be stopped and killed.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "viommu_guest.hh"

namespace viommu::e2e {

/// A process with a guest in it, which takes what comes to its ports. Killed with its owner.
class GuestProcess {
  public:
    /// Errors: the guest could not be made; it has said why on standard error.
    static Result<GuestProcess> start(const guest::GuestOptions& options) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) return fail("pipe2 failed");
        const Fd ours(ends[0]);
        Fd theirs(ends[1]);
        const pid_t parent = getpid(), pid = fork();
        if (pid < 0) return fail("fork failed");
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() == parent) live(options, theirs.get());
            _exit(1);
        }
        GuestProcess process(pid);
        theirs.reset();
        char ready;
        if (read(ours.get(), &ready, 1) != 1) return fail("the guest's process did not start");
        return process;
    }
    GuestProcess(GuestProcess&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
    GuestProcess& operator=(GuestProcess&&) = delete;
    ~GuestProcess() { kill(); }

    void stop() const {
        ::kill(pid_, SIGSTOP);
        siginfo_t info;
        waitid(P_PID, id_t(pid_), &info, WSTOPPED | WNOWAIT);
    }
    void resume() const { ::kill(pid_, SIGCONT); }
    void kill() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        waitpid(std::exchange(pid_, -1), nullptr, 0);
    }

  private:
    explicit GuestProcess(pid_t pid) : pid_(pid) {}

    static void live(const guest::GuestOptions& options, int ready) {
        auto guest = guest::Guest::create(options);
        if (!guest) {
            std::fprintf(stderr, "%s\n", guest.error().message.c_str());
            return;
        }
        if (write(ready, "", 1) != 1) return;
        for (guest::Patience patience(guest::Milliseconds(1));; patience.wait())
            for (size_t i = 0; i < (*guest)->ports(); ++i) {
                const auto got = (*guest)->port(i).receive(32, [](std::span<const std::byte>) {});
                if (!got) return;
                if (*got != 0) patience.renew();
            }
    }

    pid_t pid_;
};

}  // namespace viommu::e2e
