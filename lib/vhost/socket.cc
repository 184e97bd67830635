// SPDX-License-Identifier: BSD-3-Clause
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "librte_vhost.hh"
#include "log.hh"
#include "peer.hh"
#include "session.hh"
#include "viommu_vhost.hh"

namespace viommu::vhost {

const EalLog log("viommu.vhost");

static_assert(int(Session::Verdict::kError) == RTE_VHOST_MSG_RESULT_ERR);
static_assert(int(Session::Verdict::kDone) == RTE_VHOST_MSG_RESULT_OK);
static_assert(int(Session::Verdict::kReply) == RTE_VHOST_MSG_RESULT_REPLY);
static_assert(int(Session::Verdict::kContinue) == RTE_VHOST_MSG_RESULT_NOT_HANDLED);

namespace {

/// A frontend that is slower than this within one message loses its connection. Frontends send a
/// message in one piece, so it takes nothing from those that work.
constexpr std::chrono::milliseconds kMessageTimeout{1000};

constexpr uint64_t bit(unsigned n) { return uint64_t(1) << n; }

/// No INFLIGHT_SHMFD: frontends would use it at every start, but requests are answered in order.
/// No STATUS: nothing here needs it.
constexpr uint64_t kProtocolFeatures =
    bit(wire::VHOST_USER_PROTOCOL_F_MQ) | bit(wire::VHOST_USER_PROTOCOL_F_REPLY_ACK) |
    bit(wire::VHOST_USER_PROTOCOL_F_BACKEND_REQ) | bit(wire::VHOST_USER_PROTOCOL_F_CONFIG) |
    bit(wire::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);

constexpr uint64_t protocol_features(uint64_t features) {
    const bool logs = (features & bit(wire::VHOST_F_LOG_ALL)) != 0;
    return kProtocolFeatures | (logs ? bit(wire::VHOST_USER_PROTOCOL_F_LOG_SHMFD) : 0);
}

/// A listening socket.
struct Server {
    std::string path;
    Handler& handler;
    uint64_t features;
    Counter refused{};  ///< written by the event thread
};

struct Connection {
    std::string path;
    Fd fd;  ///< of the library's socket; none: not found
    std::unique_ptr<Session> session;
};

/// The library's callbacks bring a connection's number and nothing else, and numbers are reused.
/// The mutex is held during callbacks, so that ~Socket and the event thread do not meet: what is
/// not listed here any more gets no calls.
struct Registry {
    std::mutex mutex;
    std::map<std::string, Server*> servers;
    std::map<int, Connection> connections;
};

/// Never destroyed: the library's thread goes on until the process has ended.
Registry& registry() {
    static Registry& it = *new Registry;
    return it;
}

/// Of the frontend that is served at `path`, or null.
Session* session_at(Registry& r, const std::string& path) {
    for (auto& [vid, c] : r.connections)
        if (c.path == path && !c.session->closed()) return c.session.get();
    return nullptr;
}

/// May a new frontend of `path` come in? Not while another is served. One that has closed its
/// socket is not served any more, even if the event thread sees the new connection before the end
/// of the old one: a VMM that reboots its guest closes and connects in one go.
bool make_room(Registry& r, const std::string& path) {
    for (auto& [vid, c] : r.connections) {
        if (c.path != path || c.session->closed()) continue;
        if (!c.fd || !peer_gone(c.fd.get())) return false;
        log(RTE_LOG_INFO, "{}: frontend disconnected, another is waiting", path);
        c.session->close();
    }
    return true;
}

// noexcept: an exception must not run through the library, which holds locks.
int on_new_connection(int vid) noexcept;
void on_destroy_connection(int vid) noexcept;
rte_vhost_msg_result on_message(int vid, void* context) noexcept;

/// Never reached, as librte_vhost is not told of rings; a refusal keeps it from considering the
/// device running, which would forbid messages that we allow.
int on_new_device(int) noexcept { return -1; }
void on_destroy_device(int) noexcept {}

/// Members come and go between DPDK versions; those named here are in all of them.
constexpr rte_vhost_device_ops kDeviceOps = [] {
    rte_vhost_device_ops ops{};
    ops.new_device = on_new_device;
    ops.destroy_device = on_destroy_device;
    ops.new_connection = on_new_connection;
    ops.destroy_connection = on_destroy_connection;
    return ops;
}();

constexpr rte_vhost_user_extern_ops kMessageOps = {
    .pre_msg_handle = on_message,
    .post_msg_handle = nullptr,
};

int on_new_connection(int vid) noexcept {
    char path[PATH_MAX] = {};
    if (rte_vhost_get_ifname(vid, path, sizeof path) != 0) return -1;
    Registry& r = registry();
    const std::lock_guard lock(r.mutex);
    const auto found = r.servers.find(path);
    if (found == r.servers.end()) return -1;  // the Socket is being destroyed
    Server& server = *found->second;

    std::vector<int> known;
    for (const auto& [other, c] : r.connections)
        if (c.path == path) known.push_back(c.fd.get());
    Fd fd = find_connection(path, known);
    const pid_t pid = fd ? peer_pid(fd.get()) : 0;
    if (!make_room(r, path)) {
        server.refused.add();
        log(RTE_LOG_INFO, "{}: refused a frontend (pid {}), there is one already", path, pid);
        return -1;
    }
    if (fd) {
        limit_blocking(fd.get(), kMessageTimeout);
    } else {
        log(RTE_LOG_WARNING,
            "{}: cannot find the connection in /proc/self/fd (is /proc mounted?): a frontend that "
            "stalls can stall others, and one that reconnects at once may be refused",
            path);
    }
    if (rte_vhost_extern_callback_register(vid, &kMessageOps, nullptr) != 0) return -1;
    log(RTE_LOG_INFO, "{}: frontend connected (pid {})", path, pid);
    r.connections.insert_or_assign(
        vid, Connection{.path = path,
                        .fd = std::move(fd),
                        .session = std::make_unique<Session>(server.path, server.handler,
                                                             server.features)});
    server.handler.connected();
    return 0;
}

/// Why a connection ended, for the operator.
void log_end(const Connection& c) {
    if (!c.fd || peer_gone(c.fd.get())) {
        log(RTE_LOG_INFO, "{}: frontend disconnected", c.path);
    } else if (c.session->refused()) {
        log(RTE_LOG_NOTICE,
            "{}: disconnected the frontend, which cannot be told otherwise that its "
            "request was refused",
            c.path);
    } else if (const auto regions = unread_memory_regions(c.fd.get())) {
        log(RTE_LOG_ERR,
            "{}: librte_vhost of {} ended the connection at a memory table of {} regions; it takes "
            "{}: give the guest fewer memory zones and memory devices, or use a VMM that adds "
            "regions one by one (QEMU does)",
            c.path, rte_version(), *regions, Message::kMaxFds);
    } else {
        log(RTE_LOG_ERR,
            "{}: librte_vhost of {} ended the connection, not the frontend; usual reasons: a "
            "message longer than it takes, a queue number above 255, or a message that did not "
            "arrive within {} ms. Its own log (--log-level=lib.vhost.config:debug) says more",
            c.path, rte_version(), kMessageTimeout.count());
    }
}

void on_destroy_connection(int vid) noexcept {
    Registry& r = registry();
    const std::lock_guard lock(r.mutex);
    const auto found = r.connections.find(vid);
    if (found == r.connections.end()) return;
    if (!found->second.session->closed()) {
        log_end(found->second);
        found->second.session->close();
    }
    r.connections.erase(found);
}

rte_vhost_msg_result on_message(int vid, void* context) noexcept {
    Registry& r = registry();
    const std::lock_guard lock(r.mutex);
    const auto found = r.connections.find(vid);
    Message message(context);
    if (found == r.connections.end()) {  // the Socket is being destroyed
        message.take_fds();
        return RTE_VHOST_MSG_RESULT_ERR;
    }
    return rte_vhost_msg_result(found->second.session->handle(message));
}

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

class UnixSocket {
  public:
    /// 0 or an errno value.
    int connect(const sockaddr_un& a) const { return call(::connect, a); }
    int bind(const sockaddr_un& a) const { return call(::bind, a); }

  private:
    template <class F>
    int call(F f, const sockaddr_un& a) const {
        return f(fd_.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0 ? 0 : errno;
    }
    const Fd fd_{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
};

/// Remove what a process that died has left at `path`, but nothing else, and make sure that the
/// library's bind() will work: its own error path says little and closes an fd twice.
Result<void> prepare(const std::string& path) {
    if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path))
        return fail(
            "vhost-user socket '{}': the path must have 1 to {} bytes; choose a shorter one", path,
            sizeof(sockaddr_un::sun_path) - 1);
    const sockaddr_un address = address_of(path);
    struct stat file;
    if (lstat(path.c_str(), &file) == 0) {
        if (!S_ISSOCK(file.st_mode))
            return fail(
                "vhost-user socket {}: there is a file that is not a socket; remove it or "
                "choose another path",
                path);
        const int error = UnixSocket().connect(address);
        if (error != ECONNREFUSED)
            return fail(
                "vhost-user socket {}: another process seems to serve it ({}); stop it or "
                "choose another path",
                path, error == 0 ? "it accepts connections" : strerror(error));
        unlink(path.c_str());
    }
    if (const int error = UnixSocket().bind(address); error != 0)
        return fail(
            "vhost-user socket {}: cannot create it: {}; its directory must exist and be "
            "writable",
            path, strerror(error));
    unlink(path.c_str());
    return {};
}

/// librte_vhost's registration. The umask closes the time between bind() and a chmod(), in which
/// anybody could connect; that it holds for the whole process only makes files of other threads
/// stricter, for an instant.
bool start_library(const Server& server) {
    const char* path = server.path.c_str();
    if (rte_vhost_driver_register(path, 0) != 0) return false;
    bool ok = rte_vhost_driver_set_features(path, server.features) == 0 &&
              rte_vhost_driver_set_protocol_features(path,
                                                     protocol_features(server.features)) == 0 &&
              rte_vhost_driver_callback_register(path, &kDeviceOps) == 0;
    if (ok) {
        const mode_t before = umask(0177);
        ok = rte_vhost_driver_start(path) == 0;
        umask(before);
    }
    if (!ok) rte_vhost_driver_unregister(path);
    return ok;
}

}  // namespace

struct Socket::Impl {
    Server server;
};

Result<std::unique_ptr<Socket>> Socket::listen(const std::string& path, Handler& handler) {
    Registry& r = registry();
    {
        const std::lock_guard lock(r.mutex);
        if (r.servers.contains(path))
            return fail("vhost-user socket {}: used twice; give each device its own", path);
    }
    if (auto prepared = prepare(path); !prepared) return tl::unexpected(prepared.error());
    const uint64_t features = handler.features() | bit(wire::VHOST_USER_F_PROTOCOL_FEATURES);
    std::unique_ptr<Impl> impl(new Impl{{.path = path, .handler = handler, .features = features}});
    {
        const std::lock_guard lock(r.mutex);
        r.servers[path] = &impl->server;
    }
    if (!start_library(impl->server)) {
        const std::lock_guard lock(r.mutex);
        r.servers.erase(path);
        return fail("vhost-user socket {}: librte_vhost does not take it; its log says why", path);
    }
    return std::unique_ptr<Socket>(new Socket(std::move(impl)));
}

Socket::Socket(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Socket::~Socket() {
    const std::string& path = impl_->server.path;
    {
        Registry& r = registry();
        const std::lock_guard lock(r.mutex);
        r.servers.erase(path);
        std::erase_if(r.connections, [&](const auto& entry) {
            const Connection& c = entry.second;
            if (c.path != path) return false;
            c.session->close();  // the library would not tell
            return true;
        });
    }
    rte_vhost_driver_unregister(path.c_str());
}

bool Socket::hears_changes() const {
    Registry& r = registry();
    const std::lock_guard lock(r.mutex);
    const Session* session = session_at(r, path());
    return session != nullptr && session->hears_changes();
}

bool Socket::config_changed() {
    Registry& r = registry();
    const std::lock_guard lock(r.mutex);
    Session* session = session_at(r, path());
    return session != nullptr && session->config_changed();
}

const std::string& Socket::path() const { return impl_->server.path; }

uint64_t Socket::refused_connections() const { return impl_->server.refused.was(); }

}  // namespace viommu::vhost
