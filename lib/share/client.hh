// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "viommu_xlate.hh"

namespace viommu::share {

/// One guest's table, as a process other than the daemon has it.
///
///     auto client = share::Client::connect("/run/dpdk-viommu/vm0/readers.sock");
///     auto reader = client->reader(0x0008);      // one per thread and endpoint
///     reader->enter(); ... reader->translate(...) ... reader->leave();
///
/// The Readers' contract is lib/xlate's. The daemon enforces one thing more: a section that holds
/// up the guest for longer than the daemon's bound (reader_stall_ms) costs the process its life, or
/// its protection.
///
/// When the daemon dies, Readers go on: the table stays mapped, and nothing changes in it any more.
/// That is right for as long as no other daemon serves the guest: until then no UNMAP is answered.
/// A new daemon knows nothing of this process and has another table. So look at connected()
/// regularly, outside sections, between bursts; when it is false, stop using translations as soon
/// as the guest may have been given to another daemon, destroy the Readers and the Client, and
/// connect again. A process that was disconnected (connected() is false, the daemon lives) must
/// stop at once: nobody waits for its sections.
///
/// fork(): a child does not have the table; it must not use Client or Readers, but may destroy
/// them.
///
/// Threads: a control thread; connected() and lost_faults(), any. Outlives its Readers.
class Client {
  public:
    /// Waits until `timeout` for the daemon to be there and to answer.
    /// Errors: nothing there; the daemon refused, and why; another version; what it sent is no
    /// arena.
    static Result<Client> connect(const std::string& path,
                                  std::chrono::milliseconds timeout = std::chrono::seconds(1));
    Client(Client&&) noexcept;
    Client& operator=(Client&&) noexcept;
    ~Client();

    /// Errors: no such endpoint; all 64 readers of this process are there.
    Result<xlate::Reader> reader(EndpointId endpoint);

    /// The daemon still waits for this process's sections. Once false, false for ever.
    /// Cost: one system call.
    bool connected() const noexcept;
    /// To wait, by poll(), for the moment when connected() becomes false: POLLRDHUP. Not to be read.
    int fd() const noexcept;

    /// Faults that were not sent: more than the daemon takes, or it took none.
    uint64_t lost_faults() const noexcept;
    /// As the daemon calls it.
    const std::string& guest() const noexcept;
    const table::View& view() const noexcept;

  private:
    class Impl;
    explicit Client(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace viommu::share
