// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "dpdk_compat.hh"
#include "viommu_base.hh"
#include "viommu_wire.hh"

namespace viommu::vhost {

/// A vhost-user message as librte_vhost shows it to extern message handlers.
///
/// The library's type is private. Its head has been the same in all releases, because it is the
/// wire format: request, flags, size, then the payload. The library has checked only that `size`
/// bytes fit into its buffer; bytes beyond them are garbage.
/// The object is a view: it lives no longer than the handler's call.
class Message {
  public:
    explicit Message(void* context) : base_(static_cast<std::byte*>(context)) {
        std::memcpy(&header_, base_, sizeof header_);
    }

    uint32_t request() const { return header_.request; }
    uint32_t size() const { return header_.size; }

    /// A private copy of the payload's beginning; nothing when the message is too short for it.
    template <class T>
    std::optional<T> payload() const {
        if (size() < sizeof(T)) return std::nullopt;
        T value;
        std::memcpy(&value, base_ + kHeaderBytes, sizeof value);
        return value;
    }

    /// Copy payload bytes from `offset` on. False when the message is too short.
    bool read(size_t offset, std::span<std::byte> out) const {
        if (offset > size() || out.size() > size() - offset) return false;
        std::copy_n(base_ + kHeaderBytes + offset, out.size(), out.data());
        return true;
    }

    /// Overwrite part of the payload, for the library or for a reply.
    void write(size_t offset, std::span<const std::byte> in) {
        std::copy_n(in.data(), in.size(), base_ + kHeaderBytes + offset);
    }
    /// Turn the message into its reply: a u64.
    void reply_u64(uint64_t value) {
        const le64 bytes = value;
        write(0, std::as_bytes(std::span(&bytes, 1)));
        set_size(sizeof bytes);
    }

    /// How long the payload of the reply is.
    void set_size(uint32_t bytes) {
        header_.size = bytes;
        std::memcpy(base_ + offsetof(wire::vhost_user_header, size), &header_.size,
                    sizeof header_.size);
    }

    /// Take the file descriptors that came with the message out of it. Only the library's own
    /// handlers close them; of a message that does not reach them they would leak, or be sent back
    /// with a reply. There are at most kMaxFds, however many were sent.
    std::vector<Fd> take_fds() {
        std::vector<Fd> out;
        Fds fds;
        std::byte* const at = base_ + dpdk_compat::vhost_message_bytes();
        std::memcpy(&fds, at, sizeof fds);
        if (!fds.plausible()) return out;
        for (int i = 0; i < fds.count; ++i) out.emplace_back(fds.fd[i]);
        fds.fd.fill(-1);
        fds.count = 0;
        std::memcpy(at, &fds, sizeof fds);
        return out;
    }

    /// How many the library receives with a message (VHOST_MEMORY_MAX_NREGIONS, 22.11 to 25.11).
    static constexpr size_t kMaxFds = 8;

    /// Have an error close the connection, for requests whose answer cannot say that they failed.
    void forget_need_reply() {
        header_.flags = header_.flags & ~wire::kVhostUserNeedReply;
        std::memcpy(base_ + offsetof(wire::vhost_user_header, flags), &header_.flags,
                    sizeof header_.flags);
    }
    bool needs_reply() const { return (header_.flags & wire::kVhostUserNeedReply) != 0; }

  private:
    static constexpr size_t kHeaderBytes = sizeof(wire::vhost_user_header);
    static_assert(kHeaderBytes == 12);

    /// What follows the message in the library's context.
    struct Fds {
        std::array<int, kMaxFds> fd;
        int count;

        /// `count` descriptors and then only -1, as the library leaves the array after receiving.
        /// Should a later release move it, this does not hold, and closing nothing is the safe way.
        bool plausible() const {
            if (count < 0 || count > int(fd.size())) return false;
            const auto unused = fd.begin() + count;
            return std::all_of(fd.begin(), unused, [](int n) { return n >= 0; }) &&
                   std::all_of(unused, fd.end(), [](int n) { return n == -1; });
        }
    };
    static_assert(sizeof(Fds) == 36);

    std::byte* base_;
    wire::vhost_user_header header_;
};

}  // namespace viommu::vhost
