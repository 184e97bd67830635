// SPDX-License-Identifier: BSD-3-Clause
#include "server.hh"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "process.hh"
#include "protocol.hh"
#include "seqpacket.hh"

namespace viommu::share {
namespace {

// What an event is about: the listener, a process's socket or its pidfd.
constexpr uint64_t kListener = ~uint64_t{0};
constexpr uint64_t kPidfd = uint64_t{1} << 32;

// Work per call of serve(): one process, or a flood of connections, cannot keep it from the others.
constexpr unsigned kEvents = 64;
constexpr unsigned kConnections = 16;
constexpr unsigned kPackets = 64;

constexpr int kBacklog = 64;

/// The same file, but not open for writing.
Result<Fd> open_read_only(int fd) {
    Fd again(open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_CLOEXEC));
    if (!again) return fail("the arena cannot be opened read-only: {}", std::strerror(errno));
    return again;
}

void put_text(Hello& hello, std::string_view text) {
    const size_t n = std::min(text.size(), sizeof hello.text - 1);
    std::copy_n(text.data(), n, hello.text);
}

}  // namespace

struct Server::Process {
    Fd socket;
    PeerProcess peer;
    uint64_t unsent = 0;  // as of its last message
    // Since when the writer waits for it, for which grace period.
    table::Readers::Token held_token = 0;
    Clock::time_point held_since{};
    bool killed = false;
};

Result<std::unique_ptr<Server>> Server::listen(Config config, table::Table& table,
                                               xlate::FaultQueue& faults, Log log) {
    std::unique_ptr<Server> server(new Server(std::move(config), table, faults, std::move(log)));
    if (auto ok = server->start(); !ok) return tl::unexpected(ok.error());
    return server;
}

Server::Server(Config config, table::Table& table, xlate::FaultQueue& faults, Log log)
    : config_(std::move(config)), table_(table), faults_(faults), log_(std::move(log)) {}

Result<void> Server::start() {
    auto arena = open_read_only(table_.arena().fd());
    if (!arena) return tl::unexpected(arena.error());
    arena_ = std::move(*arena);
    events_.reset(epoll_create1(EPOLL_CLOEXEC));
    if (!events_) return fail("epoll_create: {}", std::strerror(errno));
    auto listener = listen_at(config_.path, kBacklog);
    if (!listener) return tl::unexpected(listener.error());
    listener_ = std::move(*listener);
    if (!watch(listener_.get(), kListener, EPOLLIN))
        return fail("readers' socket {}: epoll: {}", config_.path, std::strerror(errno));
    return {};
}

Server::~Server() { close(); }

void Server::close() {
    for (unsigned place = 0; place < processes_.size(); ++place) forget(place);
    if (!listener_) return;
    unlink(config_.path.c_str());
    listener_.reset();
}

bool Server::watch(int fd, uint64_t what, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = what;
    return epoll_ctl(events_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

template <class... Args>
void Server::say(Level level, fmt::format_string<Args...> format, Args&&... args) {
    log_(level, fmt::format("guest {}: {}", config_.guest,
                            fmt::format(format, std::forward<Args>(args)...)));
}

std::chrono::milliseconds Server::tick() const noexcept {
    using std::chrono::milliseconds;
    return std::clamp(config_.stall_bound / 8, milliseconds(1), milliseconds(250));
}

unsigned Server::processes() const noexcept {
    return unsigned(std::popcount(table_.readers().pages().live()));
}

unsigned Server::readers() const noexcept {
    const Pages& pages = table_.readers().pages();
    unsigned n = 0;
    for (uint64_t rest = pages.live(); rest != 0; rest &= rest - 1)
        n += pages.slots_taken(unsigned(std::countr_zero(rest)));
    return n;
}

void Server::serve() {
    epoll_event events[kEvents];
    const int n = epoll_wait(events_.get(), events, kEvents, 0);
    bool connections = false;
    for (int i = 0; i < n; ++i) {
        const uint64_t what = events[i].data.u64;
        if (what == kListener) {
            connections = true;  // last: places that become free are still named by events
        } else if (const auto place = unsigned(what & ~kPidfd); !processes_[place]) {
            continue;  // it went by another event of this round
        } else if ((what & kPidfd) != 0) {
            ended(place);
        } else {
            read_faults(place);
        }
    }
    if (connections) accept_some();
    const auto now = Clock::now();
    if (now < next_tick_) return;
    next_tick_ = now + tick();
    look_for_stalls(now);
    if (!accepting_) accepting_ = watch(listener_.get(), kListener, EPOLLIN);
}

// --- connections ---------------------------------------------------------------------------------

void Server::accept_some() {
    for (unsigned i = 0; i < kConnections; ++i) {
        Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (socket) {
            accept_one(std::move(socket));
            continue;
        }
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
        // No descriptors, or no memory. Not at once again: the listener would stay readable.
        say(Level::kError, "a reader process waits, but cannot be accepted: {}",
            std::strerror(errno));
        accepting_ = epoll_ctl(events_.get(), EPOLL_CTL_DEL, listener_.get(), nullptr) != 0;
        return;
    }
}

void Server::accept_one(Fd socket) {
    const int fd = socket.get();
    const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);  // to say no with, when welcome() fails
    const Fd again(copy);
    const auto welcomed = welcome(std::move(socket));
    if (welcomed) return;
    stats_.refused.add();
    say(Level::kWarning, "a reader process was refused: {}", welcomed.error().message);
    Hello no{.refused = 1};
    put_text(no, welcomed.error().message);
    if (again) (void)send_packet(again.get(), std::as_bytes(std::span(&no, 1)));
}

Result<void> Server::welcome(Fd socket) {
    auto peer = PeerProcess::of(socket.get());
    if (!peer) return tl::unexpected(peer.error());
    auto place = table_.readers().pages().add();
    if (!place) return fail("process {}: {}", peer->text(), place.error().message);
    const unsigned n = place->process;
    processes_[n] =
        std::make_unique<Process>(Process{.socket = std::move(socket), .peer = std::move(*peer)});
    const Process& process = *processes_[n];

    Hello hello{.faults_per_second = config_.faults_per_second};
    put_text(hello, config_.guest);
    const int fds[] = {arena_.get(), place->page.get()};
    const bool watched = watch(process.socket.get(), n, EPOLLIN | EPOLLRDHUP) &&
                         (process.peer.fd() < 0 || watch(process.peer.fd(), n | kPidfd, EPOLLIN));
    const int error =
        watched ? send_packet(process.socket.get(), std::as_bytes(std::span(&hello, 1)), fds)
                : errno;
    if (error != 0) {
        auto failed = fail("process {}: {}", process.peer.text(), std::strerror(error));
        forget(n);
        return failed;
    }
    stats_.accepted.add();
    say(Level::kInfo, "reader process {} connected", process.peer.text());
    if (process.peer.fd() < 0)
        say(Level::kWarning,
            "reader process {} cannot be watched or killed (another PID namespace?): if it stalls "
            "it "
            "will only be taken offline",
            process.peer.text());
    return {};
}

/// The process has ended, or closed its socket.
void Server::ended(unsigned place) {
    const Process& process = *processes_[place];
    if (!process.killed) {
        stats_.left.add();
        say(Level::kInfo, "reader process {} left", process.peer.pid());
    }
    forget(place);
}

/// Nothing waits for its sections any more; its place is free.
void Server::forget(unsigned place) {
    if (!processes_[place]) return;
    // Closing is not enough: as long as a child of a fork() elsewhere in the daemon has copies,
    // their events would go on to come, and be taken for those of the next process in this place.
    const Process& process = *processes_[place];
    for (const int fd : {process.socket.get(), process.peer.fd()})
        (void)epoll_ctl(events_.get(), EPOLL_CTL_DEL, fd, nullptr);
    table_.readers().pages().remove(place);
    processes_[place].reset();
}

/// It lives, and nothing waits for it any more: connected() says so to it before that is true.
void Server::cut_off(unsigned place) {
    (void)shutdown(processes_[place]->socket.get(), SHUT_RDWR);
    forget(place);
}

// --- faults --------------------------------------------------------------------------------------

void Server::read_faults(unsigned place) {
    Process& process = *processes_[place];
    for (unsigned i = 0; i < kPackets; ++i) {
        std::byte buffer[sizeof(FaultMessage)];
        const Packet packet = receive_packet(process.socket.get(), buffer);
        if (packet.error == EAGAIN) return;
        if (packet.error != 0 || packet.closed()) return ended(place);
        if (packet.bytes == sizeof buffer && take_fault(process, buffer)) continue;
        stats_.nonsense.add();
        say(Level::kWarning,
            "reader process {} sent {} bytes that are no fault report: disconnected; its page is "
            "not looked at any more, so it must not go on",
            process.peer.text(), packet.bytes);
        return cut_off(place);
    }
}

/// False: nonsense.
bool Server::take_fault(Process& process, std::span<const std::byte> packet) {
    FaultMessage m;
    std::memcpy(&m, packet.data(), sizeof m);
    const auto access = Access(m.access);
    const bool known = m.type == FaultMessage::kType &&
                       m.reason <= uint8_t(xlate::FaultReason::kMapping) &&
                       (access & Access::kReadWrite) != Access::kNone &&
                       m.access <= uint8_t(Access::kReadWrite | Access::kMmio) &&
                       m.reserved[0] == 0 && m.reserved[1] == 0 && m.reserved[2] == 0;
    if (!known || table_.arena().view().endpoint(m.endpoint) == nullptr) return false;
    if (m.lost > process.unsent)
        stats_.faults_unsent.add(m.lost - std::exchange(process.unsent, m.lost));
    if (faults_.push({{m.address}, m.endpoint, xlate::FaultReason(m.reason), access}))
        stats_.faults.add();
    else
        stats_.faults_lost.add();
    return true;
}

// --- stalls --------------------------------------------------------------------------------------

void Server::look_for_stalls(Clock::time_point now) {
    const Pages& pages = table_.readers().pages();
    const uint64_t holding_up = pages.holding_up();
    const auto token = table_.readers().token();
    for (unsigned place = 0; place < processes_.size(); ++place) {
        if (!processes_[place]) continue;
        Process& process = *processes_[place];
        if ((holding_up >> place & 1) == 0) {
            process.held_token = 0;
        } else if (process.held_token != token) {
            process.held_token = token;
            process.held_since = now;
        } else if (now - process.held_since >= config_.stall_bound && pages.inside(place, token)) {
            // Seen by the writer all the time, and by us now: had the writer been kept from
            // looking, the process might have left long ago.
            stalled(place, now);
        }
    }
}

void Server::stalled(unsigned place, Clock::time_point now) {
    Process& process = *processes_[place];
    const auto bound_ms = config_.stall_bound.count();
    int error = 0;
    if (process.killed) {
        // Dead but for a system call that does not end. It executes nothing of its own any more.
        say(Level::kError,
            "reader process {} was killed and has not ended in {} ms: taken offline. If it is in a "
            "system call on the guest's memory, that may still go on",
            process.peer.text(), bound_ms);
        return cut_off(place);
    }
    const std::string text = process.peer.text();
    if (config_.stalled == StalledReaders::kKill) {
        process.killed = true;
        process.held_since = now;
        error = process.peer.kill();
        if (error == 0) {
            stats_.killed.add();
            say(Level::kError,
                "reader process {} held up a request of the guest for {} ms: killed. A reader must "
                "not block or be stopped inside a section; if its bursts take that long, raise "
                "reader_stall_ms",
                text, bound_ms);
            return;
        }
    }
    stats_.disconnected.add();
    say(Level::kError,
        "reader process {} held up a request of the guest for {} ms: taken offline, NOT stopped{}. "
        "WHAT IT TRANSLATED MAY OUTLIVE ITS UNMAP: end it by hand. A reader must not block inside "
        "a "
        "section{}",
        text, bound_ms, error == 0 ? "" : fmt::format(" (killing it: {})", std::strerror(error)),
        error == 0 ? "; stalled_readers = \"kill\" ends it in time" : "");
    cut_off(place);
}

}  // namespace viommu::share
