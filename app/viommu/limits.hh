// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>

#include "config.hh"

namespace viommu::app {

/// librte_vhost watches 1024 descriptors in a process (MAX_FDS, 22.11 and later): a pipe
/// of its own, and of each socket the listener and the connection. Of the sockets beyond, it would
/// drop the connections, and say so only in its log.
inline constexpr size_t kMaxSockets = (1024 - 1) / 2;

/// File descriptors that all guests and their ports can need together.
size_t fds_needed(const Config& config);

/// What is wrong when there are more sockets than kMaxSockets.
std::optional<std::string> too_many_sockets(const Config& config);

/// Let this process have as many file descriptors as it may, fds_needed() at least. The usual soft
/// limit, 1024, is for programs that select(); it is enough for some 70 guests.
/// Errors: the hard limit is below, and we may not raise it.
Result<void> raise_fd_limit(const Config& config);

}  // namespace viommu::app
