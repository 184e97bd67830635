// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "viommu_base.hh"
#include "viommu_wire.hh"

namespace viommu::vhost::test {

using namespace wire;

/// One that goes straight into system calls and messages.
struct Fd : viommu::Fd {
    using viommu::Fd::Fd;
    operator int() const { return get(); }  // NOLINT: the reason for this type
};

inline Fd make_eventfd() { return Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

/// The bytes of a structure, and `more` after them.
template <class T>
std::vector<std::byte> bytes_of(const T& value, std::span<const std::byte> more = {}) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<std::byte> out(sizeof value + more.size());
    std::memcpy(out.data(), &value, sizeof value);
    std::ranges::copy(more, out.begin() + sizeof value);
    return out;
}
inline std::vector<std::byte> bytes_of(uint64_t value) { return bytes_of(le64(value)); }
inline std::vector<std::byte> filler(size_t bytes, uint8_t value) {
    return std::vector<std::byte>(bytes, std::byte{value});
}

struct Region {
    uint64_t gpa, bytes, uva;
    uint64_t offset = 0;  ///< in the file
};

/// A scripted vhost-user frontend: sends what it is told, however wrong.
class Frontend {
  public:
    struct Reply {
        uint32_t request = 0, flags = 0;
        std::vector<std::byte> payload;
        int fds = 0;  ///< how many came along (they are closed)
        uint64_t u64() const;
    };

    explicit Frontend(const std::string& path);
    void disconnect() { socket_ = Fd(); }
    int fd() const { return socket_; }

    /// One message in one piece. The size field is payload's unless `claimed` says otherwise.
    bool send(uint32_t request, std::span<const std::byte> payload = {},
              std::span<const int> fds = {}, uint32_t flags = kVhostUserVersion,
              std::optional<uint32_t> claimed = {});
    bool send_raw(std::span<const std::byte> bytes);

    /// The next message, or nothing when the connection ends or three seconds pass.
    std::optional<Reply> receive();
    /// The server closes the connection, within three seconds, with or without sending before.
    bool is_closed();

    /// Send with NEED_REPLY. True: acknowledged with 0. The device has acted by then.
    bool ack(uint32_t request, std::span<const std::byte> payload = {},
             std::span<const int> fds = {});
    /// Send and return the reply's 64-bit payload.
    uint64_t query(uint32_t request, std::span<const std::byte> payload = {});

    // Well-formed messages with NEED_REPLY; true: acknowledged with 0.
    bool set_features(uint64_t features) {
        return ack(VHOST_USER_SET_FEATURES, bytes_of(features));
    }
    bool set_mem_table(std::span<const Region> regions);
    bool add_region(const Region& region);
    bool add_region(const Region& region, int file);
    bool remove_region(const Region& region);
    bool set_num(uint32_t queue, uint32_t size) {
        return state(VHOST_USER_SET_VRING_NUM, queue, size);
    }
    bool set_base(uint32_t queue, uint32_t n) { return state(VHOST_USER_SET_VRING_BASE, queue, n); }
    bool set_enable(uint32_t queue, bool on) {
        return state(VHOST_USER_SET_VRING_ENABLE, queue, on);
    }
    bool set_addr(uint32_t queue, uint64_t desc, uint64_t avail, uint64_t used);
    bool set_kick(uint32_t queue, int fd) { return file(VHOST_USER_SET_VRING_KICK, queue, fd); }
    bool set_call(uint32_t queue, int fd) { return file(VHOST_USER_SET_VRING_CALL, queue, fd); }
    /// The index in the reply.
    uint32_t get_base(uint32_t queue);
    /// GET_CONFIG of `size` bytes; nothing unless the reply echoes the request and has that size.
    std::optional<std::vector<std::byte>> get_config(uint32_t offset, uint32_t size);

  private:
    bool state(uint32_t request, uint32_t queue, uint32_t n);
    bool file(uint32_t request, uint32_t queue, int fd);

    Fd socket_;
};

/// A file with this many zero bytes, like guest RAM.
Fd make_memory(uint64_t bytes);

/// Open file descriptors of this process.
int count_fds();

}  // namespace viommu::vhost::test
