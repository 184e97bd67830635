// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <span>
#include <string>

#include "viommu_base.hh"

namespace viommu::vhost {

/// What librte_vhost does not tell about a connection: its socket.
/// Threads: the library's event thread.

/// Another file descriptor of the accepted socket of the server at `path` that is none of `known`,
/// or none. It outlives the library's own, so the end of a connection can be looked at; close it at
/// destroy_connection, for the frontend sees no end before.
Fd find_connection(const std::string& path, std::span<const int> known);

/// Let no read or write of the library last longer. It reads messages in one blocking go, in one
/// thread for all sockets: a frontend that stops in the middle of a message would stop them all.
/// Afterwards it is only a failed read, and costs that frontend its connection.
void limit_blocking(int fd, std::chrono::milliseconds limit);

/// The frontend has closed its end; the library has not got to see it yet.
bool peer_gone(int fd);

/// For the log. 0: not known.
pid_t peer_pid(int fd);

/// How many regions the memory table has of which the library has read the header, and not the
/// rest, because it is too long. Nothing when what waits in the socket is no such table.
std::optional<uint32_t> unread_memory_regions(int fd);

}  // namespace viommu::vhost
