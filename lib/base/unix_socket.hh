// SPDX-License-Identifier: BSD-3-Clause
/// What messages over unix sockets have in common, whoever sends them.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fd.hh"

namespace viommu {

/// The longest path of a socket, in bytes.
inline constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;

/// Nothing when `path` is empty or longer than kMaxSocketPath.
std::optional<sockaddr_un> unix_address(const std::string& path);

/// Room for `kMaxFds` descriptors in a message.
template <size_t kMaxFds>
union ControlBuffer {
    cmsghdr aligned;
    char bytes[CMSG_SPACE(sizeof(int) * kMaxFds)];
};

/// Let `message` carry `fds`, which lie in `control` until it is sent. None: it carries nothing.
void put_fds(msghdr& message, std::span<const int> fds, std::span<char> control);

/// Own the descriptors that came with `message`, in `fds`; without `fds` they are closed.
void take_fds(msghdr& message, std::vector<Fd>* fds);

}  // namespace viommu
