// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "viommu_table.hh"
#include "viommu_xlate.hh"

namespace viommu::share {

/// What becomes of a process that holds up the guest for longer than the bound.
enum class StalledReaders {
    kKill,        ///< it is killed; its death lets the guest go on. Nothing outlives an UNMAP
    kDisconnect,  ///< it is taken offline and goes on: a translation of it may outlive its UNMAP
};

/// The socket on which one guest's table is shared with reader processes.
///
/// Threads: one control thread, which calls serve() when fd() is readable and at least every
/// tick(). It must not be one that waits for the guest's requests, as those may wait for it.
/// Stats: any.
class Server {
  public:
    enum class Level { kInfo, kWarning, kError };
    using Log = std::function<void(Level, const std::string&)>;
    using Clock = std::chrono::steady_clock;

    struct Config {
        std::string guest{};  ///< its name, for messages
        std::string path{};
        /// Longest time for which a process may hold up a request of the guest.
        std::chrono::milliseconds stall_bound{1000};
        StalledReaders stalled = StalledReaders::kKill;
        /// Faults that one process may report.
        uint32_t faults_per_second = 1000;
    };

    /// Events, ever. "Processes connected now" is accepted - left - killed - disconnected -
    /// nonsense.
    struct Stats {
        Counter accepted;
        Counter refused;        ///< connections: another user's, or one too many
        Counter left;           ///< closed their socket, or died by themselves
        Counter killed;         ///< stalled
        Counter disconnected;   ///< stalled, and not killed: protection was given up
        Counter nonsense;       ///< sent something that is no fault report; disconnected
        Counter faults;         ///< reported, on their way to the guest
        Counter faults_lost;    ///< reported when the guest's queue of faults was full
        Counter faults_unsent;  ///< lost in the processes, as they say
    };

    /// The socket is there on return, with mode 0600. `table` and `faults` outlive the Server.
    /// Errors: the path; no descriptors left.
    static Result<std::unique_ptr<Server>> listen(Config config, table::Table& table,
                                                  xlate::FaultQueue& faults, Log log);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    int fd() const noexcept { return events_.get(); }
    std::chrono::milliseconds tick() const noexcept;
    /// Never blocks; bounded work per call.
    void serve();

    /// Take every process offline and remove the socket; there is nothing to serve any more.
    /// Idempotent.
    void close();

    const Stats& stats() const noexcept { return stats_; }
    /// Processes connected, and the readers in them as their pages say. Threads: any.
    unsigned processes() const noexcept;
    unsigned readers() const noexcept;
    const Config& config() const noexcept { return config_; }

  private:
    struct Process;
    using Pages = table::ReaderPages;

    Server(Config config, table::Table& table, xlate::FaultQueue& faults, Log log);

    Result<void> start();
    bool watch(int fd, uint64_t what, uint32_t events);
    void accept_some();
    void accept_one(Fd socket);
    Result<void> welcome(Fd socket);
    void read_faults(unsigned place);
    bool take_fault(Process& process, std::span<const std::byte> packet);
    void look_for_stalls(Clock::time_point now);
    void stalled(unsigned place, Clock::time_point now);
    void ended(unsigned place);
    void forget(unsigned place);
    void cut_off(unsigned place);
    template <class... Args>
    void say(Level level, fmt::format_string<Args...> format, Args&&... args);

    const Config config_;
    table::Table& table_;
    xlate::FaultQueue& faults_;
    Log log_;
    Fd listener_, events_, arena_;  // arena_: read-only
    bool accepting_ = true;
    std::array<std::unique_ptr<Process>, Pages::kMaxProcesses> processes_;
    Clock::time_point next_tick_{};
    Stats stats_;
};

}  // namespace viommu::share
