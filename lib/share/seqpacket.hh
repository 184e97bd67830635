// SPDX-License-Identifier: BSD-3-Clause
/// SOCK_SEQPACKET unix sockets: one packet is one message, with descriptors. Private to lib/share.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "viommu_base.hh"

namespace viommu::share {

/// A non-blocking listening socket at `path`, mode 0600. What a dead server left there is removed.
/// Errors: the path does not fit; something else is there, or a living server; bind.
Result<Fd> listen_at(const std::string& path, int backlog);

/// A connected, non-blocking socket. Waits until `timeout` for a server to appear.
Result<Fd> connect_to(const std::string& path, std::chrono::milliseconds timeout);

/// Never blocks. Errors: errno; EAGAIN when the peer's buffer is full.
int send_packet(int socket, std::span<const std::byte> bytes,
                std::span<const int> fds = {}) noexcept;

/// Never blocks. What arrived: `bytes` of the packet, which was longer when that is more than the
/// buffer has. Nothing: `error` is EAGAIN, or 0 when the peer has closed, or another errno.
struct Packet {
    size_t bytes = 0;
    int error = 0;
    bool closed() const { return bytes == 0 && error == 0; }
};
/// `fds`: where descriptors go; without it they are closed.
Packet receive_packet(int socket, std::span<std::byte> buffer, std::vector<Fd>* fds = nullptr);

}  // namespace viommu::share
