// SPDX-License-Identifier: BSD-3-Clause
#include "channel.hh"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cassert>
#include <cerrno>
#include <cstring>

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

union ControlBuffer {
    cmsghdr aligned;
    char bytes[CMSG_SPACE(sizeof(int) * kMaxFds)];
};

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

}  // namespace

Result<Channel> Channel::connect(const std::string& path, Milliseconds timeout) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path)
        return fail("socket '{}': the path must have 1 to {} characters", path,
                    sizeof address.sun_path - 1);
    std::memcpy(address.sun_path, path.data(), path.size());

    const auto deadline = Clock::now() + timeout;
    for (;;) {
        Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (!socket) return fail("socket: {}", std::strerror(errno));
        if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0)
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
    ControlBuffer control;
    while (!bytes.empty()) {
        iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        if (!fds.empty()) {
            message.msg_control = control.bytes;
            message.msg_controllen = CMSG_SPACE(fds.size_bytes());
            cmsghdr* c = CMSG_FIRSTHDR(&message);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(fds.size_bytes());
            std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
        }
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
    ControlBuffer control;
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
