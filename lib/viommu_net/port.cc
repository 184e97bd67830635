// SPDX-License-Identifier: BSD-3-Clause
#include "port.hh"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "eal_log.hh"

namespace viommu::program {

namespace {

/// Between attempts to find a daemon again.
constexpr std::chrono::milliseconds kRetry{100};
/// For a daemon that is there to answer.
constexpr std::chrono::milliseconds kAnswer{500};
/// The longest sleep when a kick fd cannot be watched.
constexpr std::chrono::microseconds kBlindSleep{500};

const EalLog log("viommu.net");

}  // namespace

/// The frontend's messages, and what they say about the port's state.
class Port::Handler final : public nic::NetHandler {
  public:
    Handler(Port& owner, net::NetPort& net, bool dirty_log)
        : NetHandler(net, dirty_log), owner_(owner) {}

    void connected() override { owner_.set_state(kFrontend, true); }
    void disconnected() override {
        NetHandler::disconnected();
        owner_.set_state(kFrontend, false);
    }
    void queue_started(const virtq::Vring& vring) override {
        NetHandler::queue_started(vring);
        runs(vring.index, true);
    }
    uint32_t queue_stopped(uint16_t index, Stop why) override {
        runs(index, false);
        return NetHandler::queue_stopped(index, why);
    }

  private:
    void pause() override { owner_.pause(); }
    void resume() override { owner_.resume(); }
    void runs(uint16_t index, bool on) {
        if (index > net::NetPort::transmitq(0)) return;
        (index == net::NetPort::transmitq(0) ? transmit_ : receive_) = on;
        owner_.set_state(kRunning, receive_ && transmit_);
    }

    Port& owner_;
    bool receive_ = false, transmit_ = false;
};

/// A change under way: no polling thread is in the port.
class Port::Change {
  public:
    explicit Change(Port& port) : port_(port) { port_.pause(); }
    ~Change() { port_.resume(); }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

  private:
    Port& port_;
};

Port::Port(const PortOptions& options) : options_(options) {}

Result<std::unique_ptr<Port>> Port::open(const PortOptions& options) {
    std::unique_ptr<Port> port(new Port(options));
    const EndpointId endpoint = options.net.endpoint;

    auto daemon = DaemonLink::connect(options.readers, options.timeout);
    if (!daemon) return tl::unexpected(daemon.error());
    port->daemon_ = std::make_unique<DaemonLink>(std::move(*daemon));
    auto net = net::NetPort::create(
        options.net, [&] { return port->daemon_->reader(endpoint); }, *options.pool);
    if (!net) return tl::unexpected(net.error());
    port->net_ = std::move(*net);
    port->state_ = kDaemon;

    auto nowhere = Nowhere::create(endpoint, port->net_->num_queues());
    if (!nowhere) return tl::unexpected(nowhere.error());
    port->nowhere_ = std::move(*nowhere);
    for (uint16_t i = 0; i < port->max_pairs(); ++i) {
        auto wait = WaitSet::create();
        if (!wait) return tl::unexpected(wait.error());
        port->pairs_.push_back(std::unique_ptr<Pair>(new Pair{.wait = std::move(*wait)}));
    }
    port->stop_ = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!port->stop_) return fail("eventfd: {}", std::strerror(errno));

    port->handler_ = std::make_unique<Handler>(*port, *port->net_, options.dirty_log);
    auto socket = vhost::Socket::listen(options.socket, *port->handler_);
    if (!socket) return tl::unexpected(socket.error());
    port->socket_ = std::move(*socket);

    // The program's signals are the program's.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        port->watcher_ = std::thread([p = port.get()] { p->watch_daemon(); });
    } catch (const std::exception& e) {
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return fail("a thread to watch the daemon: {}", e.what());
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return port;
}

Port::~Port() {
    socket_.reset();  // rings are handed back while everything is there
    if (watcher_.joinable()) {
        const uint64_t one = 1;
        [[maybe_unused]] const ssize_t n = write(stop_.get(), &one, sizeof one);
        watcher_.join();
    }
    net_.reset();  // its readers, before what they read
}

// --- packets -------------------------------------------------------------------------------------

namespace {

/// Through `gate`, burst(rest of `packets`) as long as it does a whole burst.
template <class F>
unsigned in_bursts(nic::Gate& gate, std::span<rte_mbuf*> packets, F&& burst) noexcept {
    if (!gate.enter()) return 0;
    unsigned done = 0;
    for (unsigned n = net::NetPort::kBurst; n == net::NetPort::kBurst && done < packets.size();) {
        n = burst(packets.subspan(done));
        done += n;
    }
    gate.leave();
    return done;
}

}  // namespace

unsigned Port::receive(uint16_t pair, std::span<rte_mbuf*> out) noexcept {
    return in_bursts(pairs_[pair]->from_guest, out,
                     [&](std::span<rte_mbuf*> rest) { return net_->from_guest(pair, rest); });
}

unsigned Port::send(uint16_t pair, std::span<rte_mbuf*> in) noexcept {
    return in_bursts(pairs_[pair]->to_guest, in,
                     [&](std::span<rte_mbuf*> rest) { return net_->to_guest(pair, rest); });
}

void Port::poll_control() noexcept {
    nic::Gate& gate = pairs_[0]->from_guest;
    if (!gate.enter()) return;
    net_->poll_control();
    gate.leave();
}

bool Port::arm(uint16_t pair) noexcept {
    nic::Gate& gate = pairs_[pair]->from_guest;
    if (!gate.enter()) return false;
    const bool armed = net_->arm(pair);
    gate.leave();
    return armed;
}

void Port::disarm(uint16_t pair) noexcept {
    Pair& p = *pairs_[pair];
    p.wait.take();
    while (!p.from_guest.enter()) sched_yield();
    net_->disarm(pair);
    p.from_guest.leave();
}

std::chrono::microseconds Port::sleep_limit(uint16_t pair) noexcept {
    Pair& p = *pairs_[pair];
    if (!p.from_guest.enter()) return std::chrono::microseconds::zero();
    auto limit = net_->sleep_limit(pair);
    if (p.wait.blind()) limit = std::min(limit, kBlindSleep);
    p.from_guest.leave();
    return limit;
}

// --- changes -------------------------------------------------------------------------------------

void Port::pause() {
    control_.lock();
    for (auto& pair : pairs_) {
        pair->from_guest.close();
        pair->to_guest.close();
        // They may be closed by what follows, and the frontend has them open, too: then the epoll
        // set would keep them for good.
        pair->wait.watch({});
    }
}

void Port::resume() {
    for (uint16_t i = 0; i < pairs_.size(); ++i) {
        pairs_[i]->wait.watch(net_->wake_fds(i));
        pairs_[i]->to_guest.open();
        pairs_[i]->from_guest.open();
        pairs_[i]->wait.ring();
    }
    control_.unlock();
}

void Port::set_state(unsigned bit, bool on) {
    const std::lock_guard lock(events_);
    const unsigned before = state_.load(std::memory_order_relaxed);
    const unsigned now = on ? before | bit : before & ~bit;
    if (now == before) return;
    state_.store(now, std::memory_order_release);
    if (options_.event != nullptr) options_.event(options_.event_arg, now);
}

/// The frontend hears of it if it can; others tell the guest when it next asks.
void Port::set_link(bool up) noexcept {
    if (net_->set_link(up)) socket_->config_changed();
}

// --- the daemon ----------------------------------------------------------------------------------

void Port::watch_daemon() {
    pthread_setname_np(pthread_self(), "viommu-net");
    std::string complained_of;
    for (;;) {
        if (daemon_ && daemon_->wait_for_loss(stop_.get())) lose_daemon();
        if (!daemon_ && find_daemon(complained_of)) complained_of.clear();
        pollfd stop{stop_.get(), POLLIN, 0};
        if (::poll(&stop, 1, daemon_ ? 0 : int(kRetry.count())) > 0) return;
    }
}

/// Readers first, then what they read. From here on nothing is translated.
void Port::lose_daemon() {
    {
        const Change change(*this);
        // Has a reader for each queue. An error, and the stale table, are impossible.
        const auto left = net_->use_readers([this] { return nowhere_->reader(); });
        if (!left) rte_panic("viommu.net: %s\n", left.error().message.c_str());
    }
    log(RTE_LOG_WARNING, "{}: the daemon is gone ({}): nothing translates until it is back",
        options_.socket, options_.readers);
    daemon_.reset();
    daemons_lost_.add();
    set_state(kDaemon, false);
}

bool Port::find_daemon(std::string& complained_of) {
    auto found = DaemonLink::connect(options_.readers, kAnswer);
    Result<void> used;
    if (found) {
        auto daemon = std::make_unique<DaemonLink>(std::move(*found));
        // Outside of the change: connecting takes its time.
        std::vector<xlate::Reader> readers;
        for (unsigned i = 0; used && i < net_->num_queues(); ++i) {
            auto reader = daemon->reader(options_.net.endpoint);
            if (reader)
                readers.push_back(std::move(*reader));
            else
                used = tl::unexpected(reader.error());
        }
        if (used) {
            const Change change(*this);
            used = net_->use_readers([&, next = size_t{0}]() mutable -> Result<xlate::Reader> {
                return std::move(readers[next++]);
            });
            if (used) daemon_ = std::move(daemon);
        }
    } else {
        used = tl::unexpected(found.error());
    }
    if (!used) {
        if (used.error().message != complained_of)
            log(RTE_LOG_NOTICE, "{}: no daemon yet: {}", options_.socket, used.error().message);
        complained_of = used.error().message;
        return false;
    }
    log(RTE_LOG_INFO, "{}: the daemon is back, guest {}", options_.socket, daemon_->guest());
    set_state(kDaemon, true);
    return true;
}

}  // namespace viommu::program
