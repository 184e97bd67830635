// SPDX-License-Identifier: BSD-3-Clause
#include "frontend.hh"

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <filesystem>

#include "unix_socket.hh"

namespace viommu::vhost::test {

namespace {

constexpr int kPatienceMs = 3000;

bool readable(int fd) {
    pollfd p{.fd = fd, .events = POLLIN, .revents = 0};
    int ready;
    do {  // a fuzzer's timer interrupts it
        ready = poll(&p, 1, kPatienceMs);
    } while (ready < 0 && errno == EINTR);
    return ready == 1;
}

bool read_all(int fd, std::byte* at, size_t bytes) {
    while (bytes > 0) {
        if (!readable(fd)) return false;
        const ssize_t n = recv(fd, at, bytes, 0);
        if (n <= 0) return false;
        at += n;
        bytes -= size_t(n);
    }
    return true;
}

}  // namespace

uint64_t Frontend::Reply::u64() const {
    le64 value{};
    std::memcpy(&value, payload.data(), std::min(payload.size(), sizeof value));
    return value;
}

Frontend::Frontend(const std::string& path)
    : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    if (connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) disconnect();
}

bool Frontend::send(uint32_t request, std::span<const std::byte> payload, std::span<const int> fds,
                    uint32_t flags, std::optional<uint32_t> claimed) {
    const vhost_user_header header{
        .request = request, .flags = flags, .size = claimed.value_or(uint32_t(payload.size()))};
    std::vector<std::byte> message = bytes_of(header, payload);
    iovec data{.iov_base = message.data(), .iov_len = message.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 64)] = {};
    msghdr m{};
    m.msg_iov = &data;
    m.msg_iovlen = 1;
    put_fds(m, fds, control);
    return sendmsg(socket_, &m, MSG_NOSIGNAL) == ssize_t(message.size());
}

bool Frontend::send_raw(std::span<const std::byte> bytes) {
    return ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == ssize_t(bytes.size());
}

std::optional<Frontend::Reply> Frontend::receive() {
    vhost_user_header header;
    iovec data{.iov_base = &header, .iov_len = sizeof header};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 64)];
    msghdr m{};
    m.msg_iov = &data;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    if (!readable(socket_) || recvmsg(socket_, &m, MSG_CMSG_CLOEXEC) != sizeof header) return {};
    Reply reply{.request = header.request, .flags = header.flags, .payload = {}};
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
        const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int fd;
            std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            close(fd);
            ++reply.fds;
        }
    }
    reply.payload.resize(header.size);
    if (!read_all(socket_, reply.payload.data(), reply.payload.size())) return {};
    return reply;
}

bool Frontend::is_closed() {
    std::byte sink[512];
    while (readable(socket_))
        if (recv(socket_, sink, sizeof sink, 0) <= 0) return true;
    return false;
}

bool Frontend::ack(uint32_t request, std::span<const std::byte> payload, std::span<const int> fds) {
    if (!send(request, payload, fds, kVhostUserVersion | kVhostUserNeedReply)) return false;
    const auto reply = receive();
    return reply && reply->request == request && reply->payload.size() == 8 && reply->u64() == 0;
}

uint64_t Frontend::query(uint32_t request, std::span<const std::byte> payload) {
    if (!send(request, payload)) return 0;
    const auto reply = receive();
    return reply && reply->request == request ? reply->u64() : 0;
}

namespace {

vhost_user_mem_region in_wire_format(const Region& r) {
    return {.guest_phys_addr = r.gpa,
            .memory_size = r.bytes,
            .userspace_addr = r.uva,
            .mmap_offset = r.offset};
}

}  // namespace

bool Frontend::set_mem_table(std::span<const Region> regions) {
    std::vector<std::byte> table;
    std::vector<Fd> files;
    std::vector<int> fds;
    for (const Region& r : regions) {
        const auto bytes = bytes_of(in_wire_format(r));
        table.insert(table.end(), bytes.begin(), bytes.end());
        fds.push_back(files.emplace_back(make_memory(r.offset + r.bytes)));
    }
    const vhost_user_mem_header header{.num_regions = uint32_t(regions.size()), .padding = 0};
    return ack(VHOST_USER_SET_MEM_TABLE, bytes_of(header, table), fds);
}

bool Frontend::add_region(const Region& r) {
    const Fd file = make_memory(r.offset + r.bytes);
    return add_region(r, file);
}

bool Frontend::add_region(const Region& r, int file) {
    return ack(VHOST_USER_ADD_MEM_REG,
               bytes_of(vhost_user_mem_reg{.padding = 0, .region = in_wire_format(r)}),
               std::span(&file, 1));
}

bool Frontend::remove_region(const Region& r) {
    return ack(VHOST_USER_REM_MEM_REG,
               bytes_of(vhost_user_mem_reg{.padding = 0, .region = in_wire_format(r)}));
}

bool Frontend::set_addr(uint32_t queue, uint64_t desc, uint64_t avail, uint64_t used) {
    const vhost_user_vring_addr addr{
        .index = queue, .flags = 0, .desc = desc, .used = used, .avail = avail, .log = 0};
    return ack(VHOST_USER_SET_VRING_ADDR, bytes_of(addr));
}

uint32_t Frontend::get_base(uint32_t queue) {
    const auto payload = bytes_of(vhost_user_vring_state{.index = queue, .num = 0});
    return uint32_t(query(VHOST_USER_GET_VRING_BASE, payload) >> 32);
}

std::optional<std::vector<std::byte>> Frontend::get_config(uint32_t offset, uint32_t size) {
    const vhost_user_config_header request{.offset = offset, .size = size, .flags = 0};
    const auto payload = bytes_of(request, filler(size, 0xee));
    if (!send(VHOST_USER_GET_CONFIG, payload, {}, kVhostUserVersion | kVhostUserNeedReply))
        return {};
    const auto reply = receive();
    if (!reply || reply->request != VHOST_USER_GET_CONFIG ||
        reply->flags != (kVhostUserVersion | kVhostUserReply) ||
        reply->payload.size() != payload.size() ||
        std::memcmp(reply->payload.data(), &request, sizeof request) != 0)
        return {};
    return std::vector(reply->payload.begin() + sizeof request, reply->payload.end());
}

bool Frontend::state(uint32_t request, uint32_t queue, uint32_t n) {
    return ack(request, bytes_of(vhost_user_vring_state{.index = queue, .num = n}));
}

bool Frontend::file(uint32_t request, uint32_t queue, int fd) {
    if (fd < 0) return ack(request, bytes_of(uint64_t(queue | kVhostUserVringNoFd)));
    return ack(request, bytes_of(uint64_t(queue)), std::span(&fd, 1));
}

Fd make_memory(uint64_t bytes) {
    Fd memory(memfd_create("guest", MFD_CLOEXEC));
    if (ftruncate(memory, off_t(bytes)) != 0) return Fd();
    return memory;
}

int count_fds() {
    int count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
        ++count;
    return count;
}

}  // namespace viommu::vhost::test
