// SPDX-License-Identifier: BSD-3-Clause
#include "wait_set.hh"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>

namespace viommu::program {
namespace {

bool add(const Fd& epoll, int fd) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    return epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

Result<WaitSet> WaitSet::create() {
    Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    Fd bell(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!epoll || !bell || !add(epoll, bell.get()))
        return fail("file descriptors to wait by: {}", std::strerror(errno));
    return WaitSet(std::move(epoll), std::move(bell));
}

void WaitSet::take() noexcept {
    epoll_event events[16];
    while (epoll_wait(epoll_.get(), events, std::size(events), 0) == int(std::size(events))) {
    }
}

void WaitSet::watch(std::span<const int> fds) noexcept {
    for (const int fd : watched_) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    watched_.clear();
    blind_ = false;
    for (const int fd : fds)
        if (add(epoll_, fd))
            watched_.push_back(fd);
        else
            blind_ = true;
}

/// The counter is never read: each write is an edge. It is full after 2^64 - 2 of them.
void WaitSet::ring() noexcept {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(bell_.get(), &one, sizeof one);
}

}  // namespace viommu::program
