// SPDX-License-Identifier: BSD-3-Clause
#include "session.hh"

#include <rte_version.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <string_view>

#include "log.hh"
#include "rules.hh"

namespace viommu::vhost {

using namespace wire;

namespace {

/// The virtio configuration space behind GET_CONFIG, and how much of it one message can carry.
constexpr uint32_t kConfigSpaceBytes = 0x1000;
constexpr uint32_t kConfigMessageBytes = 256;
constexpr size_t kConfigDataOffset = sizeof(vhost_user_config_header);

constexpr uint64_t bit(unsigned n) { return uint64_t(1) << n; }

bool is_socket(const Fd& fd) {
    struct stat file;
    return fstat(fd.get(), &file) == 0 && S_ISSOCK(file.st_mode);
}

/// `fd` is a client's end of a connection to the server at `path`.
bool is_connected_to(const Fd& fd, const std::string& path) {
    sockaddr_un name{};
    socklen_t bytes = sizeof name;
    return getpeername(fd.get(), reinterpret_cast<sockaddr*>(&name), &bytes) == 0 &&
           name.sun_family == AF_UNIX && bytes > offsetof(sockaddr_un, sun_path) &&
           path == std::string(name.sun_path, strnlen(name.sun_path, sizeof name.sun_path));
}

}  // namespace

Session::Session(std::string name, Handler& handler, uint64_t offered)
    : name_(std::move(name)),
      handler_(handler),
      offered_(offered),
      queues_(handler.num_queues()) {}

Session::Verdict Session::refuse(const Message& message, std::string_view why) {
    log(RTE_LOG_NOTICE, "{}: refused vhost-user request {} of {} bytes: {}", name_,
        message.request(), message.size(), why);
    return Verdict::kError;
}

Session::Verdict Session::handle(Message message) {
    log(RTE_LOG_DEBUG, "{}: request {}, {} bytes", name_, message.request(), message.size());
    refused_ = false;
    const Rule* rule = rule_for(message.request());
    const bool ours = closed_ || rule == nullptr || rule->owner == Owner::kSession;
    Request request;
    if (ours) request.fds = message.take_fds();  // closed on return, unless somebody keeps them
    Verdict verdict = Verdict::kError;
    if (check(message, request)) {
        if (request.id == VHOST_USER_SET_PROTOCOL_FEATURES) protocol_features_ = request.value;
        if (!ours) return Verdict::kContinue;
        verdict = act(message, request);
    }
    if (verdict != Verdict::kError) {
        start_ready_queues();
    } else {
        message.take_fds();
        // Frontends wait for a reply of its own here: QEMU for any, rust-vmm for the 16 bytes that
        // it sent. Neither knows one that means failure, so a failure ends the connection: with a
        // log that we do not write, migration would lose pages without a word.
        if (message.request() == VHOST_USER_SET_LOG_BASE && (offered_ & bit(VHOST_F_LOG_ALL)))
            message.forget_need_reply();
        refused_ = !message.needs_reply();
    }
    return verdict;
}

// --- checking ------------------------------------------------------------------------------------

/// Whether the message makes sense here at all: known, complete, in range. Nothing is changed yet.
bool Session::check(const Message& message, Request& request) {
    const auto no = [&](std::string_view why) {
        refuse(message, why);
        return false;
    };
    if (closed_) return no("the connection has been given up");
    const Rule* rule = rule_for(message.request());
    if (rule == nullptr) return no("it belongs to no feature that was offered");
    if (rule->feature && (offered_ & bit(*rule->feature)) == 0)
        return no("it belongs to a feature that was not offered");
    if (message.size() < rule->payload_bytes) return no("it is too short");

    request.id = message.request();
    const auto u64 = message.payload<le64>();
    request.value = u64 ? uint64_t(*u64) : 0;
    uint32_t index = 0;
    if (rule->names == Names::kQueueInU64) index = uint8_t(request.value);
    if (rule->names == Names::kQueueInState) {
        const auto state = *message.payload<vhost_user_vring_state>();
        index = state.index;
        request.value = state.num;
    }
    if (rule->names != Names::kNoQueue && index >= queues_.size())
        return no("the device has no such queue");
    request.index = uint16_t(index);
    return check_values(message, request) &&
           (rule->owner == Owner::kLibrary || check_fds(message, request));
}

bool Session::check_values(const Message& message, const Request& request) {
    const auto no = [&](std::string_view why) {
        refuse(message, why);
        return false;
    };
    switch (request.id) {
        case VHOST_USER_SET_FEATURES:
            if (request.value & ~offered_) return no("it acknowledges bits not offered");
            break;
        case VHOST_USER_SET_VRING_NUM: {
            // A size may come before the features that tell whether the ring is packed.
            const bool any = features_ ? acked(VIRTIO_F_RING_PACKED)
                                       : (offered_ & bit(VIRTIO_F_RING_PACKED)) != 0;
            if (request.value == 0 || request.value > kMaxQueueSize)
                return no("the size is not between 1 and 32768");
            if (!any && !std::has_single_bit(request.value))
                return no("the size of a split ring is not a power of two");
            break;
        }
        case VHOST_USER_SET_MEM_TABLE: {
            const uint64_t regions = message.payload<vhost_user_mem_header>()->num_regions;
            if (message.size() - sizeof(vhost_user_mem_header) <
                regions * sizeof(vhost_user_mem_region))
                return no("it has fewer regions than it says");
            if (regions > Message::kMaxFds)
                return no(fmt::format(
                    "it has {} memory regions, and librte_vhost of {} receives {} file descriptors "
                    "with a message; give the guest fewer memory zones and memory devices, or use "
                    "a VMM that adds regions one by one (QEMU does)",
                    regions, rte_version(), Message::kMaxFds));
            break;
        }
    }
    return true;
}

bool Session::check_fds(const Message& message, const Request& request) {
    const Rule& rule = *rule_for(request.id);
    size_t expected = 0;
    switch (rule.fds) {
        case FdRule::kNone: break;
        case FdRule::kAny: return true;
        case FdRule::kOne:
        case FdRule::kOneSocket: expected = 1; break;
        case FdRule::kOneUnlessNoFd: expected = (request.value & kVhostUserVringNoFd) == 0; break;
        case FdRule::kPerRegion:
            expected = message.payload<vhost_user_mem_header>()->num_regions;
            break;
    }
    if (request.fds.size() != expected) {
        refuse(message, fmt::format("it came with {} file descriptors instead of {}",
                                    request.fds.size(), expected));
        return false;
    }
    // A frontend that gave us its own end of the connection would never be seen to leave.
    if (rule.fds == FdRule::kOneSocket &&
        (!is_socket(request.fds[0]) || is_connected_to(request.fds[0], name_))) {
        refuse(message, "its file descriptor is not a socket of its own");
        return false;
    }
    if (rule.fds == FdRule::kOneUnlessNoFd && std::ranges::any_of(request.fds, is_socket)) {
        refuse(message, "its file descriptor is a socket; it has to be an eventfd");
        return false;
    }
    return true;
}

// --- acting --------------------------------------------------------------------------------------

Session::Verdict Session::act(Message& message, Request& request) {
    switch (request.id) {
        case VHOST_USER_SET_FEATURES:
            stop_all(Handler::Stop::kReconfigured);
            features_ = request.value;
            handler_.features_acked(request.value);
            tell_log();
            return Verdict::kDone;
        case VHOST_USER_SET_OWNER:
            // "Session start". QEMU, when a device is unplugged and plugged in again, begins a new
            // session on the old connection, and adds all memory regions without removing any.
            stop_all(Handler::Stop::kReconfigured);
            memory_ = {};
            log_bits_.reset();
            tell_log();
            return Verdict::kDone;
        case VHOST_USER_RESET_OWNER:
            // Deprecated; "recommended that back-ends either ignore this message, or use it to
            // disable all rings". The library would forget features and memory.
            stop_all(Handler::Stop::kDisabled);
            for (Queue& q : queues_) q.enabled = false;
            return Verdict::kDone;
        case VHOST_USER_SET_MEM_TABLE:
        case VHOST_USER_ADD_MEM_REG:
        case VHOST_USER_REM_MEM_REG:
            return change_memory(message, request);
        case VHOST_USER_GET_MAX_MEM_SLOTS:
            message.reply_u64(MemoryTable::kMaxRegions);
            return Verdict::kReply;
        case VHOST_USER_SET_BACKEND_REQ_FD:
            backend_channel_ = std::move(request.fds[0]);
            return Verdict::kDone;
        case VHOST_USER_SET_LOG_BASE:
            return set_log_base(message, request);
        case VHOST_USER_SET_LOG_FD:
            return Verdict::kDone;  // nobody waits for it: the VMM looks at the log when it wants
        case VHOST_USER_GET_QUEUE_NUM:
            message.reply_u64(queues_.size());
            return Verdict::kReply;
        case VHOST_USER_GET_CONFIG:
            return get_config(message);
        case VHOST_USER_SET_CONFIG:
            return set_config(message);
    }
    return act_on_queue(message, request);
}

Session::Verdict Session::act_on_queue(Message& message, Request& request) {
    Queue& q = queues_[request.index];
    if (request.id == VHOST_USER_GET_VRING_BASE) return get_vring_base(message, request.index);
    if (request.id == VHOST_USER_SET_VRING_ENABLE) {
        if (request.value == 0) stop(request.index, Handler::Stop::kDisabled);
        q.enabled = request.value != 0;
        return Verdict::kDone;
    }
    if (request.id == VHOST_USER_SET_VRING_ERR) return Verdict::kDone;  // we report no errors there

    stop(request.index, Handler::Stop::kReconfigured);
    switch (request.id) {
        case VHOST_USER_SET_VRING_NUM:
            q.size = uint32_t(request.value);
            break;
        case VHOST_USER_SET_VRING_ADDR: {
            // Its flag and address for logging are not needed: see virtq::DirtyLog.
            const auto addr = *message.payload<vhost_user_vring_addr>();
            q.addresses = {.desc = addr.desc, .avail = addr.avail, .used = addr.used};
            break;
        }
        case VHOST_USER_SET_VRING_BASE:
            q.base = uint32_t(request.value);
            break;
        case VHOST_USER_SET_VRING_KICK:
            q.kick = true;
            q.kick_fd = request.fds.empty() ? Fd() : std::move(request.fds[0]);
            break;
        case VHOST_USER_SET_VRING_CALL:
            q.call_fd = request.fds.empty() ? Fd() : std::move(request.fds[0]);
            break;
    }
    return Verdict::kDone;
}

/// The new memory is mapped before anything stops: when that fails, the old goes on.
Session::Verdict Session::change_memory(const Message& message, Request& request) {
    MemoryTable changed = memory_;
    Result<void> result;
    if (request.id == VHOST_USER_SET_MEM_TABLE) {
        std::vector<vhost_user_mem_region> regions(
            message.payload<vhost_user_mem_header>()->num_regions);
        message.read(sizeof(vhost_user_mem_header), std::as_writable_bytes(std::span(regions)));
        result = changed.replace(regions, request.fds);
    } else {
        const auto region = message.payload<vhost_user_mem_reg>()->region;
        result = request.id == VHOST_USER_ADD_MEM_REG ? changed.add(region, request.fds[0])
                                                      : changed.remove(region);
    }
    if (!result) return refuse(message, result.error().message);
    stop_all(Handler::Stop::kReconfigured);
    memory_ = std::move(changed);
    handler_.memory_changed(memory_.map());
    tell_log();
    return Verdict::kDone;
}

/// When the reply is sent nothing is written to the previous log any more.
Session::Verdict Session::set_log_base(Message& message, Request& request) {
    const auto wanted = *message.payload<vhost_user_log>();
    auto bits = map_shared(request.fds[0], wanted.mmap_offset, wanted.mmap_size);
    if (!bits) return refuse(message, "dirty log: " + bits.error().message);
    stop_all(Handler::Stop::kReconfigured);
    log_bits_ = std::move(*bits);
    log_bytes_ = wanted.mmap_size;
    tell_log();
    message.set_size(sizeof wanted);
    return Verdict::kReply;
}

/// The queue starts over with addresses and file descriptors.
Session::Verdict Session::get_vring_base(Message& message, uint16_t index) {
    stop(index, Handler::Stop::kGetBase);
    Queue& q = queues_[index];
    q.addresses.reset();
    q.kick = false;
    q.kick_fd.reset();
    q.call_fd.reset();
    const vhost_user_vring_state state{.index = index, .num = q.base};
    message.write(0, std::as_bytes(std::span(&state, 1)));
    message.set_size(sizeof state);
    return Verdict::kReply;
}

/// Answers with the offset, size and flags of the request, which are still in the message. A reply
/// without payload means failure; some frontends cannot bear it, so it is for requests that no
/// guest can cause.
Session::Verdict Session::get_config(Message& message) {
    const auto config = *message.payload<vhost_user_config_header>();
    const uint32_t offset = config.offset, size = config.size;
    if (size > kConfigMessageBytes || offset > kConfigSpaceBytes ||
        size > kConfigSpaceBytes - offset) {
        refuse(message, "it is outside the configuration space");
        message.set_size(0);
        return Verdict::kReply;
    }
    std::array<std::byte, kConfigMessageBytes> data{};
    handler_.config_read(offset, std::span(data).first(size));
    message.write(kConfigDataOffset, std::span(data).first(size));
    message.set_size(kConfigDataOffset + size);
    return Verdict::kReply;
}

Session::Verdict Session::set_config(const Message& message) {
    const auto config = *message.payload<vhost_user_config_header>();
    const uint32_t offset = config.offset, size = config.size;
    std::array<std::byte, kConfigMessageBytes> data{};
    if (size > data.size() || offset > kConfigSpaceBytes || size > kConfigSpaceBytes - offset)
        return refuse(message, "it is outside the configuration space");
    if (!message.read(kConfigDataOffset, std::span(data).first(size)))
        return refuse(message, "it is shorter than it says");
    handler_.config_write(offset, std::span<const std::byte>(data).first(size));
    return Verdict::kDone;
}

bool Session::hears_changes() const {
    return backend_channel_ && (protocol_features_ & bit(VHOST_USER_PROTOCOL_F_CONFIG)) != 0;
}

bool Session::config_changed() {
    if (!hears_changes()) return false;
    const vhost_user_header message{.request = VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
                                    .flags = kVhostUserVersion,
                                    .size = 0};
    if (send(backend_channel_.get(), &message, sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 ||
        errno == EAGAIN)
        return true;
    log(RTE_LOG_NOTICE, "{}: the frontend has closed its channel: {}", name_, strerror(errno));
    backend_channel_.reset();
    return false;
}

bool Session::acked(unsigned feature) const { return features_ && (*features_ & bit(feature)); }

/// Features, memory or the log have changed. No queue is running.
void Session::tell_log() {
    const bool on = acked(VHOST_F_LOG_ALL) && log_bits_ && memory_.map();
    if (!on && !log_) return;
    if (log_ && log_->missed() != 0)
        log(RTE_LOG_WARNING,
            "{}: {} writes to guest memory lie beyond the VMM's dirty log of {:#x} bytes: it "
            "cannot migrate those pages",
            name_, log_->missed(), log_bytes_);
    if (on != bool(log_)) log(RTE_LOG_INFO, "{}: dirty logging is {}", name_, on ? "on" : "off");
    log_ = on ? std::make_shared<const virtq::DirtyLog>(memory_.map(), log_bits_, log_bytes_)
              : nullptr;
    handler_.log_changed(log_);
}

// --- queues --------------------------------------------------------------------------------------

void Session::stop(uint16_t index, Handler::Stop why) {
    Queue& q = queues_[index];
    if (!q.running) return;
    q.running = false;
    q.base = handler_.queue_stopped(index, why);
    log(RTE_LOG_DEBUG, "{}: queue {} stopped at {}", name_, index, q.base);
}

void Session::stop_all(Handler::Stop why) {
    for (size_t i = 0; i < queues_.size(); ++i) stop(uint16_t(i), why);
}

bool Session::ready(const Queue& q) const {
    return features_ && memory_.map() && q.size != 0 && q.addresses && q.kick &&
           (std::has_single_bit(q.size) || acked(VIRTIO_F_RING_PACKED)) &&
           q.enabled.value_or(!acked(VHOST_USER_F_PROTOCOL_FEATURES));
}

void Session::start_ready_queues() {
    for (size_t i = 0; i < queues_.size(); ++i) {
        Queue& q = queues_[i];
        if (q.running || !ready(q)) continue;
        q.running = true;
        log(RTE_LOG_DEBUG, "{}: queue {} starts at {}", name_, i, q.base);
        handler_.queue_started({.index = uint16_t(i),
                                .size = q.size,
                                .desc = q.addresses->desc,
                                .avail = q.addresses->avail,
                                .used = q.addresses->used,
                                .base = q.base,
                                .kick_fd = q.kick_fd.get(),
                                .call_fd = q.call_fd.get()});
    }
}

void Session::close() {
    if (closed_) return;
    stop_all(Handler::Stop::kDisconnected);
    closed_ = true;
    backend_channel_.reset();
    log_bits_.reset();
    tell_log();
    memory_ = {};
    handler_.disconnected();
}

}  // namespace viommu::vhost
