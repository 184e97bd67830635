// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "config.hh"
#include "report.hh"
#include "viommu_share.hh"

namespace viommu::app {

/// The sockets at which reader processes get guests' tables.
///
/// Served by a thread of their own, not by the main one: that prints to a pipe which may be full,
/// and closes VMMs' connections, which waits for readers. Whatever it does, readers that stall must
/// not hold up guests. Threads: the main lcore.
class ReaderSockets {
  public:
    ReaderSockets() = default;
    ~ReaderSockets() { stop(); }
    ReaderSockets(const ReaderSockets&) = delete;
    ReaderSockets& operator=(const ReaderSockets&) = delete;

    /// Make the socket of a guest that has one configured. Before start(). Both outlive this.
    Result<void> add(const Guest& guest, device::Device& device);
    /// Begin to serve.
    Result<void> start();
    /// Disconnect all processes and remove the sockets. Idempotent. Nothing waits for readers any
    /// more, so: after the last answer to a guest.
    void stop();

    /// guest.<name>.readers; nothing for a guest that has no socket.
    void add_counters(Counters& out, const Guest& guest) const;

  private:
    void run();
    std::chrono::milliseconds tick() const;

    std::vector<std::unique_ptr<share::Server>> servers_;
    Fd events_, stop_;
    std::thread thread_;
};

}  // namespace viommu::app
