// SPDX-License-Identifier: BSD-3-Clause
#include "limits.hh"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace viommu::app {
namespace {

/// The EAL, telemetry, pollers, taps.
constexpr size_t kFdsOfTheProcess = 256;
/// The arena, and what one message of a frontend brings (8, and the dirty log).
constexpr size_t kFdsPerGuest = 10;
/// Listener, connection and our copy of it, and the channel back to the frontend.
constexpr size_t kFdsPerSocket = 4;
/// Kick, call and error.
constexpr size_t kFdsPerQueue = 3;
/// Receive interrupts of an ethdev that is a port's peer.
constexpr size_t kFdsPerPair = 1;
/// Where there are readers: listener, epoll, the arena once more, one that is being refused; socket
/// and pidfd of each process.
constexpr size_t kFdsOfReaders = 4 + 2 * table::ReaderPages::kMaxProcesses;

size_t sockets(const Config& config) {
    size_t n = config.guests.size();
    for (const Guest& guest : config.guests) n += guest.nets.size();
    return n;
}

}  // namespace

size_t fds_needed(const Config& config) {
    size_t n = kFdsOfTheProcess + sockets(config) * kFdsPerSocket;
    for (const Guest& guest : config.guests) {
        n += kFdsPerGuest + 2 * kFdsPerQueue;
        if (guest.readers) n += kFdsOfReaders;
        for (const Net& net : guest.nets)
            n += (2u * net.queue_pairs + net.control_queue) * kFdsPerQueue +
                 net.queue_pairs * kFdsPerPair;
    }
    return n;
}

std::optional<std::string> too_many_sockets(const Config& config) {
    const size_t n = sockets(config);
    if (n <= kMaxSockets) return std::nullopt;
    return fmt::format(
        "{} guests and their net ports have {} sockets, and librte_vhost serves at most {} in one "
        "process; give some of the guests to a second daemon",
        config.guests.size(), n, kMaxSockets);
}

Result<void> raise_fd_limit(const Config& config) {
    const rlim_t needed = fds_needed(config);
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return fail("getrlimit: {}", std::strerror(errno));
    const rlim_t before = limit.rlim_max;
    limit.rlim_max = std::max(before, needed);  // root may
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0) return {};
    if (before < needed)
        return fail(
            "{} guests and their ports need up to {} file descriptors, and the limit is {}; raise "
            "it (ulimit -n {}; LimitNOFILE={} in a systemd unit), or configure fewer",
            config.guests.size(), needed, before, needed, needed);
    return fail("setrlimit: {}", std::strerror(errno));
}

}  // namespace viommu::app
