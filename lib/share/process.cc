// SPDX-License-Identifier: BSD-3-Clause
#include "process.hh"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // Linux 6.5, asm-generic/socket.h
#endif

namespace viommu::share {
namespace {

/// The other end is closed.
bool hung_up(int socket) {
    pollfd p{socket, POLLRDHUP, 0};
    return poll(&p, 1, 0) != 0;
}

/// From the socket where the kernel can (Linux 6.5), else by number. The number cannot have come to
/// mean another process before the first one's socket was closed, at which we look afterwards.
Fd open_pidfd(int socket, pid_t pid) {
    int fd = -1;
    socklen_t size = sizeof fd;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0) return Fd(fd);
    if (errno != ENOPROTOOPT || pid <= 0) return {};
    Fd opened(int(syscall(SYS_pidfd_open, pid, 0)));  // close-on-exec
    if (hung_up(socket)) opened.reset();
    return opened;
}

}  // namespace

Result<PeerProcess> PeerProcess::of(int socket) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return fail("who connected cannot be told: {}", std::strerror(errno));
    if (peer.uid != geteuid() && peer.uid != 0)
        return fail("process {} runs as user {}; the table is for user {} and root", peer.pid,
                    peer.uid, geteuid());
    return PeerProcess(peer.pid, open_pidfd(socket, peer.pid));
}

int PeerProcess::kill() const noexcept {
    if (pid_ == getpid()) return EPERM;  // a client in the server's own process
    if (!fd_) return ESRCH;
    return syscall(SYS_pidfd_send_signal, fd_.get(), SIGKILL, nullptr, 0) == 0 ? 0 : errno;
}

std::string PeerProcess::text() const {
    std::string name;
    std::getline(std::ifstream(fmt::format("/proc/{}/comm", pid_)), name);
    for (char& c : name)
        if (c < ' ' || c > '~') c = '?';
    return name.empty() ? fmt::format("{}", pid_) : fmt::format("{} ({})", pid_, name);
}

}  // namespace viommu::share
