// SPDX-License-Identifier: BSD-3-Clause
#include "reader_sockets.hh"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "eal_log.hh"
#include "guest.hh"

namespace viommu::app {
namespace {

constexpr uint64_t kStop = ~uint64_t{0};
/// While no process is connected.
constexpr std::chrono::milliseconds kIdleTick{1000};
/// Faults that one process may report per second, whatever the guest's limit: each is a packet that
/// the serving thread reads.
constexpr uint64_t kMostFaults = 10'000;

const EalLog share_log("viommu.share");

void log(share::Server::Level level, const std::string& text) {
    using Level = share::Server::Level;
    const uint32_t rte_level = level == Level::kInfo      ? RTE_LOG_INFO
                               : level == Level::kWarning ? RTE_LOG_WARNING
                                                          : RTE_LOG_ERR;
    share_log(rte_level, "{}", text);
}

bool watch(int events, int fd, uint64_t what) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = what;
    return epoll_ctl(events, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

Result<void> ReaderSockets::add(const Guest& guest, device::Device& device) {
    if (!guest.readers) return {};
    if (auto made = make_directories(guest.readers->socket); !made) return made;
    const uint64_t faults =
        uint64_t{guest.device.faults_per_second} * guest.device.endpoints.size();
    share::Server::Config config;
    config.guest = guest.name;
    config.path = guest.readers->socket;
    config.stall_bound = guest.readers->stall;
    config.stalled = guest.readers->stalled;
    config.faults_per_second = uint32_t(std::min(faults, kMostFaults));
    auto server = share::Server::listen(std::move(config), device.table(), device.faults(), log);
    if (!server) return tl::unexpected(server.error());
    servers_.push_back(std::move(*server));
    return {};
}

Result<void> ReaderSockets::start() {
    if (servers_.empty()) return {};
    events_.reset(epoll_create1(EPOLL_CLOEXEC));
    stop_.reset(eventfd(0, EFD_CLOEXEC));
    bool ok = events_ && stop_ && watch(events_.get(), stop_.get(), kStop);
    for (size_t i = 0; i < servers_.size(); i++)
        ok = ok && watch(events_.get(), servers_[i]->fd(), i);
    if (!ok) return fail("readers' sockets: {}", std::strerror(errno));
    thread_ = std::thread([this] { run(); });
    return {};
}

std::chrono::milliseconds ReaderSockets::tick() const {
    auto tick = kIdleTick;
    for (const auto& server : servers_)
        if (server->processes() != 0) tick = std::min(tick, server->tick());
    return tick;
}

void ReaderSockets::run() {
    using Clock = std::chrono::steady_clock;
    constexpr int kEvents = 64;
    epoll_event events[kEvents];
    auto next = Clock::now();
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            std::min<Clock::duration>(next - Clock::now(), tick()));
        const int wait_ms = int(std::max<int64_t>(0, left.count()));
        const int n = epoll_wait(events_.get(), events, kEvents, wait_ms);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == kStop) return;
            servers_[events[i].data.u64]->serve();
        }
        if (Clock::now() + tick() < next) next = Clock::now() + tick();  // the first has come
        if (Clock::now() < next) continue;
        for (auto& server : servers_) server->serve();
        next = Clock::now() + tick();
    }
}

void ReaderSockets::stop() {
    if (thread_.joinable()) {
        const uint64_t one = 1;
        // An eventfd that nobody has written takes it.
        [[maybe_unused]] const ssize_t written = write(stop_.get(), &one, sizeof one);
        thread_.join();
    }
    for (auto& server : servers_) server->close();
}

void ReaderSockets::add_counters(Counters& out, const Guest& guest) const {
    for (const auto& server : servers_) {
        if (server->config().guest != guest.name) continue;
        const std::string prefix = fmt::format("guest.{}.readers", guest.name);
        const share::Server::Stats& stats = server->stats();
        out.add(prefix, "processes", server->processes());
        out.add(prefix, "threads", server->readers());
        out.add(prefix, "accepted", stats.accepted.was());
        out.add(prefix, "refused", stats.refused.was());
        out.add(prefix, "left", stats.left.was());
        out.add(prefix, "killed", stats.killed.was());
        out.add(prefix, "disconnected", stats.disconnected.was());
        out.add(prefix, "nonsense", stats.nonsense.was());
        out.add(prefix, "faults", stats.faults.was());
        out.add(prefix, "faults_lost", stats.faults_lost.was());
        out.add(prefix, "faults_unsent", stats.faults_unsent.was());
    }
}

}  // namespace viommu::app
