// SPDX-License-Identifier: BSD-3-Clause
#include "eventfd.hh"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace viommu::guest {

Result<Fd> make_eventfd() {
    Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fd) return fail("eventfd: {}", std::strerror(errno));
    return fd;
}

void signal_eventfd(int eventfd) {
    const uint64_t one = 1;
    // EAGAIN: the counter is at its maximum, so the other side has been signalled.
    [[maybe_unused]] const ssize_t written = ::write(eventfd, &one, sizeof one);
}

bool drain_eventfd(int eventfd) {
    uint64_t count = 0;
    return ::read(eventfd, &count, sizeof count) == ssize_t(sizeof count);
}

}  // namespace viommu::guest
