// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <chrono>
#include <span>
#include <string>

namespace viommu::vhost {

/// What librte_vhost does not tell about a connection: its socket. Borrowed, never closed here.
/// Valid between new_connection and destroy_connection, in the library's event thread only.

/// The accepted socket of the server at `path` that is not one of `known`, or -1.
int find_connection(const std::string& path, std::span<const int> known);

/// Let no read or write of the library last longer. It reads messages in one blocking go, in one
/// thread for all sockets: a frontend that stops in the middle of a message would stop them all.
/// Afterwards it is only a failed read, and costs that frontend its connection.
void limit_blocking(int fd, std::chrono::milliseconds limit);

/// The frontend has closed its end; the library has not got to see it yet.
bool peer_gone(int fd);

/// For the log. 0: not known.
pid_t peer_pid(int fd);

}  // namespace viommu::vhost
