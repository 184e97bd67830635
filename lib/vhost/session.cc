// SPDX-License-Identifier: BSD-3-Clause
#include "session.hh"

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "librte_vhost.hh"
#include "log.hh"

namespace viommu::vhost {

using namespace wire;

namespace {

/// The endpoint's addresses are IOVAs. librte_vhost must not see it: it would look up its IOTLB.
constexpr unsigned VIRTIO_F_ACCESS_PLATFORM = 33;

/// The virtio configuration space behind GET_CONFIG, and how much of it one message can carry.
constexpr uint32_t kConfigSpaceBytes = 0x1000;
constexpr uint32_t kConfigMessageBytes = 256;
constexpr size_t kConfigDataOffset = sizeof(vhost_user_config_header);

enum class Names : uint8_t {
    kNoQueue,
    kQueueInState,  ///< vhost_user_vring_state, vhost_user_vring_addr
    kQueueInU64,    ///< bits 0-7
};
enum class Stops : uint8_t { kNothing, kQueue, kEverything };

/// Every request that we serve or let the library serve. Others belong to features that are not
/// offered; the library has handlers for some of them that nobody should reach.
struct Rule {
    vhost_user_request request;
    uint32_t payload_bytes;  ///< at least
    Names names;
    Stops stops;  ///< what it changes, which must not run meanwhile
};
constexpr Rule kRules[] = {
    {VHOST_USER_GET_FEATURES, 0, Names::kNoQueue, Stops::kNothing},
    {VHOST_USER_SET_FEATURES, 8, Names::kNoQueue, Stops::kEverything},
    {VHOST_USER_SET_OWNER, 0, Names::kNoQueue, Stops::kNothing},
    {VHOST_USER_RESET_OWNER, 0, Names::kNoQueue, Stops::kNothing},
    {VHOST_USER_SET_MEM_TABLE, 8, Names::kNoQueue, Stops::kEverything},
    {VHOST_USER_SET_VRING_NUM, 8, Names::kQueueInState, Stops::kQueue},
    {VHOST_USER_SET_VRING_ADDR, 40, Names::kQueueInState, Stops::kQueue},
    {VHOST_USER_SET_VRING_BASE, 8, Names::kQueueInState, Stops::kQueue},
    {VHOST_USER_GET_VRING_BASE, 8, Names::kQueueInState, Stops::kNothing},
    // The library closes the old fd; its number may come back as something else.
    {VHOST_USER_SET_VRING_KICK, 8, Names::kQueueInU64, Stops::kQueue},
    {VHOST_USER_SET_VRING_CALL, 8, Names::kQueueInU64, Stops::kQueue},
    {VHOST_USER_SET_VRING_ERR, 8, Names::kQueueInU64, Stops::kNothing},
    {VHOST_USER_GET_PROTOCOL_FEATURES, 0, Names::kNoQueue, Stops::kNothing},
    {VHOST_USER_SET_PROTOCOL_FEATURES, 8, Names::kNoQueue, Stops::kNothing},
    {VHOST_USER_GET_QUEUE_NUM, 0, Names::kNoQueue, Stops::kNothing},
    {VHOST_USER_SET_VRING_ENABLE, 8, Names::kQueueInState, Stops::kNothing},
    {VHOST_USER_SET_BACKEND_REQ_FD, 0, Names::kNoQueue, Stops::kNothing},
    {VHOST_USER_GET_CONFIG, kConfigDataOffset, Names::kNoQueue, Stops::kNothing},
    {VHOST_USER_SET_CONFIG, kConfigDataOffset, Names::kNoQueue, Stops::kNothing},
};

const Rule* rule_for(uint32_t request) {
    const auto found = std::ranges::find(kRules, request, &Rule::request);
    return found == std::end(kRules) ? nullptr : found;
}

constexpr uint64_t bit(unsigned n) { return uint64_t(1) << n; }

}  // namespace

static_assert(int(Session::Verdict::kError) == RTE_VHOST_MSG_RESULT_ERR);
static_assert(int(Session::Verdict::kDone) == RTE_VHOST_MSG_RESULT_OK);
static_assert(int(Session::Verdict::kReply) == RTE_VHOST_MSG_RESULT_REPLY);
static_assert(int(Session::Verdict::kContinue) == RTE_VHOST_MSG_RESULT_NOT_HANDLED);

Session::Session(int vid, std::string name, Handler& handler, uint64_t offered)
    : vid_(vid),
      name_(std::move(name)),
      handler_(handler),
      offered_(offered),
      queues_(handler.num_queues()) {}

Session::Verdict Session::refuse(const Message& message, const char* why) {
    log(RTE_LOG_NOTICE, "{}: refused vhost-user request {} of {} bytes: {}", name_,
        message.request(), message.size(), why);
    return Verdict::kError;
}

Session::Verdict Session::before(Message message) {
    log(RTE_LOG_DEBUG, "{}: request {}, {} bytes", name_, message.request(), message.size());
    Verdict verdict = check(message);
    if (verdict == Verdict::kContinue) verdict = act(message);
    if (verdict != Verdict::kContinue) message.close_fds();
    return verdict;
}

/// Whether the message makes sense here at all: known, complete, in range. Nothing is changed yet
/// but the copies of its fields.
Session::Verdict Session::check(const Message& message) {
    request_ = 0;
    if (closed_) return refuse(message, "the connection has been given up");
    const Rule* rule = rule_for(message.request());
    if (rule == nullptr) return refuse(message, "it belongs to no feature that was offered");
    if (message.size() < rule->payload_bytes) return refuse(message, "it is too short");

    const auto u64 = message.payload<le64>();
    const auto state = message.payload<vhost_user_vring_state>();
    value_ = u64 ? uint64_t(*u64) : 0;
    uint32_t index = 0;
    if (rule->names == Names::kQueueInU64) index = uint8_t(value_);
    if (rule->names == Names::kQueueInState) {
        index = state->index;
        value_ = state->num;
    }
    if (rule->names != Names::kNoQueue && index >= queues_.size())
        return refuse(message, "the device has no such queue");
    index_ = uint16_t(index);

    switch (message.request()) {
        case VHOST_USER_SET_FEATURES:
            if (value_ & ~offered_) return refuse(message, "it acknowledges bits not offered");
            break;
        case VHOST_USER_SET_MEM_TABLE: {
            const uint64_t regions = message.payload<vhost_user_mem_header>()->num_regions;
            if (message.size() - sizeof(vhost_user_mem_header) <
                regions * sizeof(vhost_user_mem_region))
                return refuse(message, "it has fewer regions than it says");
            break;
        }
        case VHOST_USER_SET_VRING_NUM:
            if (value_ > kMaxQueueSize || !std::has_single_bit(value_))
                return refuse(message, "the size is not a power of two up to 32768");
            break;
    }
    request_ = message.request();
    return Verdict::kContinue;
}

/// Stop what the message is going to change, and answer it if that is our business.
Session::Verdict Session::act(Message& message) {
    const Stops stops = rule_for(request_)->stops;
    if (stops == Stops::kQueue) stop(index_, Handler::Stop::kReconfigured);
    if (stops == Stops::kEverything) stop_all(Handler::Stop::kReconfigured);

    switch (request_) {
        case VHOST_USER_SET_FEATURES:
            message.write_u64(value_ & ~bit(VIRTIO_F_ACCESS_PLATFORM));
            return Verdict::kContinue;
        case VHOST_USER_RESET_OWNER:
            // Deprecated; "recommended that back-ends either ignore this message, or use it to
            // disable all rings". The library would forget features and memory.
            stop_all(Handler::Stop::kDisabled);
            for (Queue& q : queues_) q.enabled = false;
            return Verdict::kDone;
        case VHOST_USER_SET_MEM_TABLE:
            memory_.reset();  // the library unmaps it now, and may fail to map the new one
            return Verdict::kContinue;
        case VHOST_USER_SET_VRING_ADDR: {
            const auto addr = *message.payload<vhost_user_vring_addr>();
            addresses_ = {.desc = addr.desc, .avail = addr.avail, .used = addr.used};
            return Verdict::kDone;
        }
        case VHOST_USER_GET_VRING_BASE:
            get_vring_base();
            return Verdict::kContinue;
        case VHOST_USER_SET_VRING_ENABLE:
            if (value_ == 0) stop(index_, Handler::Stop::kDisabled);
            return Verdict::kContinue;
        case VHOST_USER_GET_QUEUE_NUM:
            message.write_u64(queues_.size());
            message.set_size(sizeof(le64));
            return Verdict::kReply;
        case VHOST_USER_GET_CONFIG:
            return get_config(message);
        case VHOST_USER_SET_CONFIG:
            return set_config(message);
    }
    return Verdict::kContinue;
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

/// The library answers with its own index, so it must have ours before it does. Afterwards it
/// closes the queue's kick and call fds, and the frontend starts over with addresses.
void Session::get_vring_base() {
    stop(index_, Handler::Stop::kGetBase);
    Queue& q = queues_[index_];
    rte_vhost_set_vring_base(vid_, index_, uint16_t(q.base), uint16_t(q.base));
    q.addresses.reset();
    q.kick = false;
}

Session::Verdict Session::after() {
    if (closed_) return Verdict::kContinue;
    Queue* q = index_ < queues_.size() ? &queues_[index_] : nullptr;
    switch (request_) {
        case VHOST_USER_SET_FEATURES:
            features_ = value_;
            handler_.features_acked(value_);
            break;
        case VHOST_USER_SET_MEM_TABLE:
            if (!load_memory()) return Verdict::kError;
            break;
        case VHOST_USER_SET_VRING_NUM:
            q->size = uint32_t(value_);
            break;
        case VHOST_USER_SET_VRING_ADDR:
            q->addresses = addresses_;
            break;
        case VHOST_USER_SET_VRING_BASE:
            q->base = uint32_t(value_);
            break;
        case VHOST_USER_SET_VRING_KICK:
            q->kick = true;
            break;
        case VHOST_USER_SET_VRING_ENABLE:
            q->enabled = value_ != 0;
            break;
    }
    request_ = 0;
    start_ready_queues();
    return Verdict::kContinue;
}

/// Take over the table that the library has just mapped. Only then does it have one: asking it
/// when it has none would crash it.
bool Session::load_memory() {
    rte_vhost_memory* table = nullptr;
    if (rte_vhost_get_mem_table(vid_, &table) != 0) return false;
    std::vector<virtq::MemoryRegion> regions;
    for (const rte_vhost_mem_region& r : std::span(table->regions, table->nregions)) {
        regions.push_back({.gpa = {r.guest_phys_addr},
                           .uva = {r.guest_user_addr},
                           .bytes = r.size,
                           .vva = reinterpret_cast<std::byte*>(r.host_user_addr)});
    }
    free(table);
    auto map = virtq::MemoryMap::create(std::move(regions));
    if (!map) {
        log(RTE_LOG_NOTICE, "{}: refused the memory table: {}", name_, map.error().message);
        return false;
    }
    memory_ = std::make_shared<const virtq::MemoryMap>(std::move(*map));
    handler_.memory_changed(memory_);
    return true;
}

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
    return features_ && memory_ && q.size != 0 && q.addresses && q.kick &&
           q.enabled.value_or((*features_ & bit(VHOST_USER_F_PROTOCOL_FEATURES)) == 0);
}

void Session::start_ready_queues() {
    for (size_t i = 0; i < queues_.size(); ++i) {
        Queue& q = queues_[i];
        if (q.running || !ready(q)) continue;
        rte_vhost_vring fds{};
        if (rte_vhost_get_vhost_vring(vid_, uint16_t(i), &fds) != 0) continue;
        q.running = true;
        log(RTE_LOG_DEBUG, "{}: queue {} starts at {}", name_, i, q.base);
        handler_.queue_started({.index = uint16_t(i),
                                .size = q.size,
                                .desc = q.addresses->desc,
                                .avail = q.addresses->avail,
                                .used = q.addresses->used,
                                .base = q.base,
                                // Below zero are two kinds of none, both the library's own.
                                .kick_fd = std::max(fds.kickfd, -1),
                                .call_fd = std::max(fds.callfd, -1)});
    }
}

void Session::close() {
    if (closed_) return;
    stop_all(Handler::Stop::kDisconnected);
    closed_ = true;
    memory_.reset();
    handler_.disconnected();
}

}  // namespace viommu::vhost
