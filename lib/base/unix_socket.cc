// SPDX-License-Identifier: BSD-3-Clause
#include "unix_socket.hh"

#include <cassert>
#include <cstring>

namespace viommu {

std::optional<sockaddr_un> unix_address(const std::string& path) {
    if (path.empty() || path.size() > kMaxSocketPath) return std::nullopt;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

void put_fds(msghdr& message, std::span<const int> fds, std::span<char> control) {
    if (fds.empty()) return;
    assert(CMSG_SPACE(fds.size_bytes()) <= control.size());
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
}

void take_fds(msghdr& message, std::vector<Fd>* fds) {
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int fd;
            std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            Fd owned(fd);
            if (fds != nullptr) fds->push_back(std::move(owned));
        }
    }
}

}  // namespace viommu
