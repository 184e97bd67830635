// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "viommu_base.hh"
#include "wait.hh"

namespace viommu::guest {

/// Both ends of a vhost-user connection: bytes and descriptors over a unix stream socket, with a
/// time limit on everything.
class Channel {
  public:
    Channel() = default;
    Channel(Fd socket, Milliseconds timeout) : socket_(std::move(socket)), timeout_(timeout) {}
    /// A listener that is not there yet, or is busy, is waited for, as Cloud Hypervisor does.
    static Result<Channel> connect(const std::string& path, Milliseconds timeout);

    /// All of `bytes`; descriptors travel with the first one. They stay the caller's.
    Result<void> send(std::span<const std::byte> bytes, std::span<const int> fds = {});
    /// Exactly `bytes`. Descriptors that came along are added to `fds`, or closed if it is null.
    /// Errors: the peer closed the connection; it said too little in time.
    Result<void> receive(std::span<std::byte> bytes, std::vector<Fd>* fds = nullptr);
    /// Something (data, or the end) can be read now.
    bool readable(Milliseconds timeout) const;

    int fd() const { return socket_.get(); }
    bool is_open() const { return bool(socket_); }
    void close() { socket_.reset(); }

  private:
    Fd socket_;
    Milliseconds timeout_{5000};
};

}  // namespace viommu::guest
