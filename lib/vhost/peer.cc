// SPDX-License-Identifier: BSD-3-Clause
#include "peer.hh"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>
#include <string_view>

#include "viommu_wire.hh"

namespace viommu::vhost {

namespace {

/// An accepted socket has the address of the listening one, and does not listen itself.
bool accepted_at(int fd, const std::string& path) {
    sockaddr_un name{};
    socklen_t bytes = sizeof name;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&name), &bytes) != 0) return false;
    if (name.sun_family != AF_UNIX || bytes <= offsetof(sockaddr_un, sun_path)) return false;
    const std::string_view own(name.sun_path, strnlen(name.sun_path, sizeof name.sun_path));
    int listening = 0;
    bytes = sizeof listening;
    return own == path && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) == 0 &&
           listening == 0;
}

bool same_socket(int a, int b) {
    struct stat x, y;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

}  // namespace

Fd find_connection(const std::string& path, std::span<const int> known) {
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir("/proc/self/fd"), closedir);
    if (!dir) return Fd();
    while (const dirent* entry = readdir(dir.get())) {
        int fd = -1;
        const std::string_view text(entry->d_name);
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), fd);
        if (error != std::errc{} || !accepted_at(fd, path)) continue;
        if (std::ranges::none_of(known, [&](int other) { return same_socket(fd, other); }))
            return Fd(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    }
    return Fd();
}

void limit_blocking(int fd, std::chrono::milliseconds limit) {
    timeval value{};
    value.tv_sec = limit.count() / 1000;
    value.tv_usec = limit.count() % 1000 * 1000;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof value);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof value);
}

bool peer_gone(int fd) {
    pollfd p{.fd = fd, .events = POLLRDHUP, .revents = 0};
    return poll(&p, 1, 0) == 1 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

pid_t peer_pid(int fd) {
    ucred credentials{};
    socklen_t bytes = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) != 0) return 0;
    return credentials.pid;
}

std::optional<uint32_t> unread_memory_regions(int fd) {
    wire::vhost_user_mem_header header;
    int waiting = 0;
    if (ioctl(fd, FIONREAD, &waiting) != 0 ||
        recv(fd, &header, sizeof header, MSG_PEEK | MSG_DONTWAIT) != sizeof header)
        return std::nullopt;
    const uint64_t regions = header.num_regions;
    if (header.padding != 0 || regions == 0 ||
        uint64_t(waiting) < sizeof header + regions * sizeof(wire::vhost_user_mem_region))
        return std::nullopt;
    return uint32_t(regions);
}

}  // namespace viommu::vhost
