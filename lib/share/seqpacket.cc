// SPDX-License-Identifier: BSD-3-Clause
#include "seqpacket.hh"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "unix_socket.hh"

namespace viommu::share {
namespace {

constexpr size_t kMaxFds = 2;

Result<sockaddr_un> address_of(const std::string& path) {
    const auto address = unix_address(path);
    if (!address)
        return fail("readers' socket '{}': the path must have 1 to {} bytes", path, kMaxSocketPath);
    return *address;
}

Fd make_socket() { return Fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)); }

template <class Call>
int on_address(Call call, int socket, const sockaddr_un& address) {
    return call(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0
                                                                                          : errno;
}

/// Remove what a server that died has left at `path`, but nothing else.
Result<void> clear(const std::string& path, const sockaddr_un& address) {
    struct stat file;
    if (lstat(path.c_str(), &file) != 0) return {};
    if (!S_ISSOCK(file.st_mode))
        return fail(
            "readers' socket {}: there is a file that is not a socket; remove it or choose "
            "another path",
            path);
    const int error = on_address(::connect, make_socket().get(), address);
    if (error != ECONNREFUSED)
        return fail(
            "readers' socket {}: another process seems to serve it ({}); stop it or choose "
            "another path",
            path, error == 0 ? "it accepts connections" : std::strerror(error));
    unlink(path.c_str());
    return {};
}

}  // namespace

Result<Fd> listen_at(const std::string& path, int backlog) {
    const auto address = address_of(path);
    if (!address) return tl::unexpected(address.error());
    if (auto cleared = clear(path, *address); !cleared) return tl::unexpected(cleared.error());
    Fd listener = make_socket();
    // The mode before bind() makes the file: there is no time in which others could connect.
    int error = listener && fchmod(listener.get(), 0600) == 0 ? 0 : errno;
    if (error == 0) error = on_address(::bind, listener.get(), *address);
    if (error == 0 && ::listen(listener.get(), backlog) != 0) {
        error = errno;
        unlink(path.c_str());
    }
    if (error != 0)
        return fail(
            "readers' socket {}: cannot create it: {}; its directory must exist and be "
            "writable",
            path, std::strerror(error));
    return listener;
}

Result<Fd> connect_to(const std::string& path, std::chrono::milliseconds timeout) {
    const auto address = address_of(path);
    if (!address) return tl::unexpected(address.error());
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (;;) {
        Fd socket = make_socket();
        if (!socket) return fail("socket: {}", std::strerror(errno));
        const int error = on_address(::connect, socket.get(), *address);
        if (error == 0) return socket;
        const bool worth_waiting =
            error == ENOENT || error == ECONNREFUSED || error == EAGAIN || error == EINTR;
        if (!worth_waiting || std::chrono::steady_clock::now() >= deadline)
            return fail(
                "readers' socket {}: {}; is dpdk-viommu running, and `readers` of the guest "
                "this path?",
                path, std::strerror(error));
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

int send_packet(int socket, std::span<const std::byte> bytes, std::span<const int> fds) noexcept {
    iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    ControlBuffer<kMaxFds> control{};
    put_fds(message, fds, control.bytes);
    for (;;) {
        if (sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return 0;
        if (errno != EINTR) return errno;
    }
}

Packet receive_packet(int socket, std::span<std::byte> buffer, std::vector<Fd>* fds) {
    iovec part{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    ControlBuffer<kMaxFds> control{};
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    ssize_t n;
    do {
        // MSG_TRUNC: the length of the packet, whatever the buffer's.
        n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return {0, errno};
    take_fds(message, fds);
    return {size_t(n), 0};
}

}  // namespace viommu::share
