// SPDX-License-Identifier: BSD-3-Clause
#include "channel.hh"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "unix_socket.hh"

namespace viommu::guest {

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxFds = 32;  // rust-vmm's limit per message

/// Wait for `events` until `deadline`.
bool wait_for(int fd, short events, Clock::time_point deadline) {
    for (;;) {
        const auto left = std::chrono::ceil<Milliseconds>(deadline - Clock::now()).count();
        pollfd p{fd, events, 0};
        const int n = ::poll(&p, 1, left > 0 ? int(left) : 0);
        if (n > 0) return true;
        if (n == 0 || errno != EINTR) return false;
    }
}

}  // namespace

Result<Channel> Channel::connect(const std::string& path, Milliseconds timeout) {
    const auto address = unix_address(path);
    if (!address)
        return fail("socket '{}': the path must have 1 to {} characters", path, kMaxSocketPath);

    const auto deadline = Clock::now() + timeout;
    for (;;) {
        Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (!socket) return fail("socket: {}", std::strerror(errno));
        if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address),
                      sizeof *address) == 0)
            return Channel(std::move(socket), timeout);
        const int why = errno;
        const bool worth_waiting =
            why == ENOENT || why == ECONNREFUSED || why == EAGAIN || why == EINTR;
        if (!worth_waiting || Clock::now() >= deadline)
            return fail("socket {}: {}; is the daemon listening there?", path, std::strerror(why));
        std::this_thread::sleep_for(Milliseconds(10));
    }
}

Result<void> Channel::send(std::span<const std::byte> bytes, std::span<const int> fds) {
    assert(fds.size() <= kMaxFds);
    if (!is_open()) return fail("not connected");
    const auto deadline = Clock::now() + timeout_;
    ControlBuffer<kMaxFds> control;
    while (!bytes.empty()) {
        iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        put_fds(message, fds, control.bytes);
        const ssize_t n = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            bytes = bytes.subspan(size_t(n));
            fds = {};
        } else if (errno == EAGAIN) {
            if (!wait_for(socket_.get(), POLLOUT, deadline))
                return fail("the peer took nothing for {} ms", timeout_.count());
        } else if (errno != EINTR) {
            return fail("sending: {}", std::strerror(errno));
        }
    }
    return {};
}

Result<void> Channel::receive(std::span<std::byte> bytes, std::vector<Fd>* fds) {
    if (!is_open()) return fail("not connected");
    const auto deadline = Clock::now() + timeout_;
    const size_t wanted = bytes.size();
    ControlBuffer<kMaxFds> control;
    while (!bytes.empty()) {
        iovec part{bytes.data(), bytes.size()};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        const ssize_t n = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (n > 0) {
            take_fds(message, fds);
            bytes = bytes.subspan(size_t(n));
        } else if (n == 0) {
            return fail("the peer closed the connection after {} of {} bytes",
                        wanted - bytes.size(), wanted);
        } else if (errno == EAGAIN) {
            if (!wait_for(socket_.get(), POLLIN, deadline))
                return fail("the peer sent {} of {} bytes in {} ms", wanted - bytes.size(), wanted,
                            timeout_.count());
        } else if (errno != EINTR) {
            return fail("receiving: {}", std::strerror(errno));
        }
    }
    return {};
}

bool Channel::readable(Milliseconds timeout) const {
    return is_open() && wait_for(socket_.get(), POLLIN, Clock::now() + timeout);
}

}  // namespace viommu::guest
