// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

#include "daemon_link.hh"
#include "nowhere.hh"
#include "viommu_nic.hh"
#include "wait_set.hh"

namespace viommu::program {

struct PortOptions {
    std::string readers;  ///< the guest's readers' socket
    std::string socket;   ///< where the frontend connects
    net::Config net;
    rte_mempool* pool = nullptr;
    std::chrono::milliseconds timeout{1000};  ///< for the daemon to be there
    bool dirty_log = false;
    /// Called with PortState bits whenever they have changed; one call at a time, by librte_vhost's
    /// event thread or the port's own. May call nothing of the port but state().
    void (*event)(void* arg, unsigned state) = nullptr;
    void* event_arg = nullptr;
};

enum PortState : unsigned {
    kDaemon = 1,    ///< the daemon waits for our sections
    kFrontend = 2,  ///< a VMM is connected
    kRunning = 4,   ///< both queues of pair 0 run: the guest's driver is there
};

/// A virtio-net port in a program that is not the daemon: net::NetPort on the daemon's table, with
/// a socket of its own, for threads that we do not know.
///
/// Three kinds of threads meet here. Polling threads are the program's; librte_vhost's event
/// thread, the program's control thread and the port's own, which watches the daemon, change
/// things: one at a time by a mutex, with all Gates closed, so that no polling thread is in the
/// port.
///
/// When the daemon is lost, its table is left at once: Nowhere takes its place, rings stall, and
/// nothing translates. The port connects again when there is a daemon again; then rings are
/// looked for in that one's table.
///
/// Threads: as each group of methods says; open and destruction: a control thread.
class Port {
  public:
    /// EAL is initialised. Errors: the daemon's, the socket's, the configuration.
    static Result<std::unique_ptr<Port>> open(const PortOptions& options);
    ~Port();
    Port(const Port&) = delete;
    Port& operator=(const Port&) = delete;

    uint16_t max_pairs() const noexcept { return net_->max_pairs(); }

    // --- by the thread that polls the pair's direction -------------------------------------------

    /// As NetPort's from_guest() and to_guest(), any number.
    unsigned receive(uint16_t pair, std::span<rte_mbuf*> out) noexcept;
    unsigned send(uint16_t pair, std::span<rte_mbuf*> in) noexcept;

    // --- by the thread that receives from the pair -----------------------------------------------

    /// Of pair 0.
    void poll_control() noexcept;
    /// As NetPort's. arm() is false also while something changes; disarm() waits for that.
    bool arm(uint16_t pair) noexcept;
    void disarm(uint16_t pair) noexcept;
    std::chrono::microseconds sleep_limit(uint16_t pair) noexcept;

    // --- by any thread ---------------------------------------------------------------------------

    /// Readable when there may be something to do for an armed pair: constant while the port lives.
    int wait_fd(uint16_t pair) const noexcept { return pairs_[pair]->wait.fd(); }
    unsigned state() const noexcept { return state_.load(std::memory_order_acquire); }
    void set_link(bool up) noexcept;
    const net::NetPort& net() const noexcept { return *net_; }
    uint64_t daemons_lost() const noexcept { return daemons_lost_.was(); }
    uint64_t frontends_refused() const noexcept { return socket_->refused_connections(); }

  private:
    struct Pair {
        nic::Gate from_guest{}, to_guest{};
        WaitSet wait;
    };
    class Handler;
    class Change;

    explicit Port(const PortOptions& options);

    void pause();
    void resume();
    void set_state(unsigned bit, bool on);
    void watch_daemon();
    void lose_daemon();
    bool find_daemon(std::string& complained_of);

    const PortOptions options_;
    std::unique_ptr<Nowhere> nowhere_;
    std::unique_ptr<DaemonLink> daemon_;  ///< the watching thread's, once that runs
    std::unique_ptr<net::NetPort> net_;
    std::vector<std::unique_ptr<Pair>> pairs_;
    std::unique_ptr<Handler> handler_;
    std::unique_ptr<vhost::Socket> socket_;

    std::mutex control_;  ///< whoever changes something
    std::mutex events_;   ///< of `state_` and calls of `event`
    std::atomic<unsigned> state_{0};
    Counter daemons_lost_;
    Fd stop_;  ///< eventfd: the watching thread is to end
    std::thread watcher_;
};

}  // namespace viommu::program
