// SPDX-License-Identifier: BSD-3-Clause
#include "frontend.hh"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "eventfd.hh"

namespace viommu::guest {

using namespace wire;

namespace {

bool is_get(uint32_t request) {
    return request == VHOST_USER_GET_FEATURES || request == VHOST_USER_GET_PROTOCOL_FEATURES ||
           request == VHOST_USER_GET_QUEUE_NUM || request == VHOST_USER_GET_VRING_BASE ||
           request == VHOST_USER_GET_CONFIG || request == VHOST_USER_GET_MAX_MEM_SLOTS ||
           request == VHOST_USER_SET_LOG_BASE;
}

template <class T>
std::span<const std::byte> bytes_of(const T& object) {
    return std::as_bytes(std::span(&object, 1));
}
template <class T>
std::span<std::byte> writable_bytes_of(T& object) {
    return std::as_writable_bytes(std::span(&object, 1));
}

}  // namespace

Result<Frontend> Frontend::connect(const FrontendOptions& options) {
    Frontend frontend;
    frontend.options_ = options;
    auto channel = Channel::connect(options.socket, options.timeout);
    if (!channel) return tl::unexpected(channel.error());
    frontend.channel_ = std::move(*channel);
    if (auto ok = frontend.negotiate(true); !ok) return tl::unexpected(ok.error());
    return frontend;
}

void Frontend::disconnect() {
    channel_.close();
    backend_requests_.close();
    active_.clear();
    regions_.clear();
    need_reply_ = false;
}

Result<void> Frontend::reconnect() {
    disconnect();
    auto channel = Channel::connect(options_.socket, options_.timeout);
    if (!channel) return tl::unexpected(channel.error());
    channel_ = std::move(*channel);
    reconnected_ = true;
    return negotiate(false);
}

Result<void> Frontend::exchange(uint32_t request, std::span<const std::byte> payload,
                                std::span<const int> fds, std::span<std::byte> reply,
                                ReplySize size) {
    const auto failed = [&](const std::string& why) {
        return fail("{}: {}: {}", options_.socket, request_name(request), why);
    };
    const bool need_reply = need_reply_ && !(options_.vmm == Vmm::kQemu && is_get(request));
    std::vector<std::byte> message(sizeof(vhost_user_header) + payload.size());
    const vhost_user_header header{request,
                                   kVhostUserVersion | (need_reply ? kVhostUserNeedReply : 0),
                                   uint32_t(payload.size())};
    std::memcpy(message.data(), &header, sizeof header);
    if (!payload.empty())
        std::memcpy(message.data() + sizeof header, payload.data(), payload.size());
    if (auto ok = channel_.send(message, fds); !ok) return failed(ok.error().message);

    le64 ack{0};
    const bool is_ack = reply.empty();
    if (is_ack && !need_reply) return {};
    if (is_ack) reply = writable_bytes_of(ack);

    vhost_user_header answer;
    if (auto ok = channel_.receive(writable_bytes_of(answer)); !ok)
        return failed(ok.error().message);
    if (answer.request != request)
        return failed(fmt::format("answered with message {}", uint32_t(answer.request)));
    if (answer.flags != (kVhostUserVersion | kVhostUserReply))
        return failed(fmt::format("answered with flags {:#x}", uint32_t(answer.flags)));
    if (size == ReplySize::kAtMost && answer.size < reply.size())
        reply = reply.first(answer.size);
    if (answer.size != reply.size())
        return failed(
            fmt::format("answered with {} bytes instead of {}; Cloud Hypervisor would hang",
                        uint32_t(answer.size), reply.size()));
    if (auto ok = channel_.receive(reply); !ok) return failed(ok.error().message);
    if (is_ack && ack != 0) return failed(fmt::format("refused ({})", uint64_t(ack)));
    return {};
}

template <class T>
Result<void> Frontend::set(uint32_t request, const T& body, std::span<const int> fds) {
    return exchange(request, bytes_of(body), fds);
}

template <class T>
Result<T> Frontend::get(uint32_t request) {
    T value{};
    if (auto ok = exchange(request, {}, {}, writable_bytes_of(value)); !ok)
        return tl::unexpected(ok.error());
    return value;
}

Result<void> Frontend::negotiate(bool first) {
    const bool owner_first = options_.vmm == Vmm::kCloudHypervisor;
    if (owner_first)
        if (auto ok = exchange(VHOST_USER_SET_OWNER, {}); !ok) return ok;
    const auto features = get<le64>(VHOST_USER_GET_FEATURES);
    if (!features) return tl::unexpected(features.error());
    features_ = *features;
    if ((features_ & bit(VHOST_USER_F_PROTOCOL_FEATURES)) == 0)
        return fail(
            "{}: features {:#x} lack VHOST_USER_F_PROTOCOL_FEATURES (30), without which a VMM "
            "cannot enable queues",
            options_.socket, features_);
    if (auto ok = negotiate_protocol(first); !ok) return ok;
    if (owner_first) return {};
    if (auto ok = exchange(VHOST_USER_SET_OWNER, {}); !ok) return ok;
    if (auto again = get<le64>(VHOST_USER_GET_FEATURES); !again)
        return tl::unexpected(again.error());
    return announce_queues();
}

Result<void> Frontend::negotiate_protocol(bool first) {
    // Cloud Hypervisor remembers over a reconnection what it had been offered.
    if (first || options_.vmm == Vmm::kQemu) {
        const auto offered = get<le64>(VHOST_USER_GET_PROTOCOL_FEATURES);
        if (!offered) return tl::unexpected(offered.error());
        protocol_features_ = *offered & options_.protocol_features;
    }
    if (auto ok = set(VHOST_USER_SET_PROTOCOL_FEATURES, le64{protocol_features_}); !ok) return ok;
    need_reply_ = negotiated(VHOST_USER_PROTOCOL_F_REPLY_ACK);
    const bool qemu = options_.vmm == Vmm::kQemu;
    if (qemu && negotiated(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
        if (auto slots = get<le64>(VHOST_USER_GET_MAX_MEM_SLOTS); !slots)
            return tl::unexpected(slots.error());
    if (!negotiated(VHOST_USER_PROTOCOL_F_MQ) || (!first && !qemu)) return {};
    const auto num = get<le64>(VHOST_USER_GET_QUEUE_NUM);
    if (!num) return tl::unexpected(num.error());
    queue_num_ = *num;
    if (queue_num_ < options_.queues)
        return fail("{}: the device has {} queues, {} were asked for", options_.socket, queue_num_,
                    options_.queues);
    return {};
}

/// QEMU gives every queue a call fd that leads nowhere, and enables it, long before it has a ring.
Result<void> Frontend::announce_queues() {
    masked_calls_.clear();
    for (uint16_t q = 0; q < options_.queues; ++q) {
        auto masked = make_eventfd();
        if (!masked) return tl::unexpected(masked.error());
        masked_calls_.push_back(std::move(*masked));
        if (auto ok = set_ring_fd(VHOST_USER_SET_VRING_CALL, q, masked_calls_[q].get()); !ok)
            return ok;
        if (auto ok = enable(q, true); !ok) return ok;
    }
    return {};
}

Result<void> Frontend::read_config(uint32_t offset, std::span<std::byte> out, uint32_t flags) {
    if (!negotiated(VHOST_USER_PROTOCOL_F_CONFIG))
        return fail("{}: the backend has no configuration space (protocol feature CONFIG)",
                    options_.socket);
    const vhost_user_config_header head{offset, uint32_t(out.size()), flags};
    std::vector<std::byte> message(sizeof head + out.size());
    std::memcpy(message.data(), &head, sizeof head);
    std::vector<std::byte> reply(message.size());
    if (auto ok = exchange(VHOST_USER_GET_CONFIG, message, {}, reply); !ok) return ok;
    vhost_user_config_header echoed;
    std::memcpy(&echoed, reply.data(), sizeof echoed);
    if (echoed.offset != offset || echoed.size != out.size())
        return fail("{}: GET_CONFIG: asked for {} bytes at {}, told about {} bytes at {}",
                    options_.socket, out.size(), offset, uint32_t(echoed.size),
                    uint32_t(echoed.offset));
    std::memcpy(out.data(), reply.data() + sizeof echoed, out.size());
    return {};
}

Result<void> Frontend::write_config(uint32_t offset, std::span<const std::byte> in) {
    constexpr uint32_t kWritable = 1;
    const vhost_user_config_header head{offset, uint32_t(in.size()), kWritable};
    std::vector<std::byte> message(sizeof head + in.size());
    std::memcpy(message.data(), &head, sizeof head);
    std::memcpy(message.data() + sizeof head, in.data(), in.size());
    return exchange(VHOST_USER_SET_CONFIG, message);
}

Result<void> Frontend::activate(uint64_t acked, const Memory& memory,
                                std::span<const QueueSetup> queues) {
    if (auto ok = set_features(acked); !ok) return ok;
    if (auto ok = set_mem_table(memory); !ok) return ok;
    active_.assign(queues.begin(), queues.end());
    if (auto ok = start_all(); !ok) return ok;
    reconnected_ = false;
    const bool channel =
        options_.vmm == Vmm::kCloudHypervisor && negotiated(VHOST_USER_PROTOCOL_F_BACKEND_REQ);
    return channel ? set_backend_channel() : Result<void>{};
}

Result<void> Frontend::start_all() {
    if (options_.vmm == Vmm::kCloudHypervisor)
        for (const auto& q : active_)
            if (auto ok = set_ring_size(q); !ok) return ok;
    for (const auto& q : active_) {
        if (options_.vmm == Vmm::kQemu)
            if (auto ok = set_ring_size(q); !ok) return ok;
        if (auto ok = set_vring(q); !ok) return ok;
    }
    for (const auto& q : active_)
        if (auto ok = enable(q.index, true); !ok) return ok;
    return {};
}

Result<std::vector<uint32_t>> Frontend::reset() {
    std::vector<uint32_t> answers;
    const bool qemu = options_.vmm == Vmm::kQemu;
    for (const auto& q : active_)
        if (qemu)
            if (auto ok = enable(q.index, false); !ok) return tl::unexpected(ok.error());
    for (const auto& q : active_) {
        if (!qemu)
            if (auto ok = enable(q.index, false); !ok) return tl::unexpected(ok.error());
        const auto base = get_vring_base(q.index);
        if (!base) return tl::unexpected(base.error());
        answers.push_back(*base);
    }
    active_.clear();
    bases_.clear();
    return answers;
}

Result<void> Frontend::pause() {
    for (const auto& q : active_)
        if (auto ok = enable(q.index, false); !ok) return ok;
    if (options_.vmm == Vmm::kCloudHypervisor) return {};
    for (auto& q : active_) {
        const auto base = get_vring_base(q.index);
        if (!base) return tl::unexpected(base.error());
        bases_[q.index] = *base;
        q.base.reset();  // what the driver said of its ring's start is of long ago
    }
    return {};
}

Result<void> Frontend::resume() {
    if (options_.vmm == Vmm::kCloudHypervisor) {
        for (const auto& q : active_)
            if (auto ok = enable(q.index, true); !ok) return ok;
        return {};
    }
    if (auto ok = set_features(acked_); !ok) return ok;
    if (auto ok = set_mem_table(std::vector(regions_), memory_fd_); !ok) return ok;
    return start_all();
}

Result<uint32_t> Frontend::stop_queue(uint16_t index) {
    std::erase_if(active_, [&](const QueueSetup& q) { return q.index == index; });
    bases_.erase(index);
    return get_vring_base(index);
}

Result<void> Frontend::start_queue(const QueueSetup& queue) {
    if (auto ok = set_ring_size(queue); !ok) return ok;
    if (auto ok = set_vring(queue); !ok) return ok;
    active_.push_back(queue);
    return enable(queue.index, true);
}

Result<void> Frontend::set_features(uint64_t acked) {
    const uint64_t platform = bit(VIRTIO_F_ACCESS_PLATFORM);
    const bool tell = options_.ring_addresses == RingAddresses::kIova;
    const uint64_t value = tell ? acked | platform : acked & ~platform;
    acked_ = (value | bit(VHOST_USER_F_PROTOCOL_FEATURES)) & features_;
    return set(VHOST_USER_SET_FEATURES, le64{acked_});
}

Result<void> Frontend::set_mem_table(const Memory& memory) {
    return set_mem_table(memory.regions(), memory.fd());
}

Result<void> Frontend::set_mem_table(std::span<const MemoryRegion> regions, int fd) {
    memory_fd_ = fd;
    const auto sent = std::exchange(regions_, {regions.begin(), regions.end()});
    if (options_.vmm == Vmm::kQemu && negotiated(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) {
        const auto without = [](std::span<const MemoryRegion> all,
                                std::span<const MemoryRegion> these) {
            std::vector<MemoryRegion> rest;
            for (const auto& r : all)
                if (std::find(these.begin(), these.end(), r) == these.end()) rest.push_back(r);
            return rest;
        };
        for (const auto& r : without(sent, regions_))
            if (auto ok = memory_regions(VHOST_USER_REM_MEM_REG, {&r, 1}, fd); !ok) return ok;
        for (const auto& r : without(regions_, sent))
            if (auto ok = memory_regions(VHOST_USER_ADD_MEM_REG, {&r, 1}, fd); !ok) return ok;
        return {};
    }
    return memory_regions(VHOST_USER_SET_MEM_TABLE, regions_, fd);
}

/// A table of regions, or a single one, whose header is as long.
Result<void> Frontend::memory_regions(uint32_t request, std::span<const MemoryRegion> regions,
                                      int fd) {
    static_assert(sizeof(vhost_user_mem_reg) ==
                  sizeof(vhost_user_mem_header) + sizeof(vhost_user_mem_region));
    const bool table = request == VHOST_USER_SET_MEM_TABLE;
    const vhost_user_mem_header head{table ? uint32_t(regions.size()) : 0, 0};
    std::vector<std::byte> body(sizeof head + regions.size() * sizeof(vhost_user_mem_region));
    std::memcpy(body.data(), &head, sizeof head);
    for (size_t i = 0; i < regions.size(); ++i) {
        const auto& r = regions[i];
        const vhost_user_mem_region entry{r.first.value, r.bytes, r.uva().value, r.file_offset};
        std::memcpy(body.data() + sizeof head + i * sizeof entry, &entry, sizeof entry);
    }
    const bool fds = request != VHOST_USER_REM_MEM_REG;
    return exchange(request, body, std::vector<int>(fds ? regions.size() : 0, fd));
}

Result<void> Frontend::add_memory(const MemoryRegion& region, int fd) {
    if (negotiated(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) {
        regions_.push_back(region);
        return memory_regions(VHOST_USER_ADD_MEM_REG, {&region, 1}, fd);
    }
    auto all = regions_;
    all.push_back(region);
    return set_mem_table(all, fd);
}

Result<void> Frontend::set_ring_size(const QueueSetup& queue) {
    return set(VHOST_USER_SET_VRING_NUM, vhost_user_vring_state{queue.index, queue.size});
}

Result<void> Frontend::set_vring(const QueueSetup& queue) {
    const bool qemu = options_.vmm == Vmm::kQemu;
    const auto call = [&]() -> Result<void> {
        if (queue.call_fd < 0) return {};
        return set_ring_fd(VHOST_USER_SET_VRING_CALL, queue.index, queue.call_fd);
    };
    if (auto ok = qemu ? set_ring_base(queue) : set_ring_address(queue); !ok) return ok;
    if (auto ok = qemu ? set_ring_address(queue) : set_ring_base(queue); !ok) return ok;
    if (!qemu)
        if (auto ok = call(); !ok) return ok;
    if (auto ok = set_ring_fd(VHOST_USER_SET_VRING_KICK, queue.index, queue.kick_fd); !ok)
        return ok;
    return qemu ? call() : Result<void>{};
}

/// What the VMM writes for one part of a ring.
Result<uint64_t> Frontend::ring_part(BusAddress at, uint64_t bytes, const char* what) const {
    if (options_.ring_addresses == RingAddresses::kIova) return at.value;
    const Gpa as_gpa{at.value};
    for (const auto& r : regions_)
        if (r.contains(as_gpa, bytes)) return (r.uva() + (as_gpa - r.first)).value;
    return fail(
        "{}: the {} ring at bus address {} is not inside RAM, and the VMM takes bus addresses "
        "for GPAs; choose IOVAs inside RAM",
        options_.socket, what, at);
}

Result<void> Frontend::set_ring_address(const QueueSetup& queue) {
    constexpr uint64_t kEvents = sizeof(pvirtq_event_suppress);
    const auto desc = ring_part(queue.desc, desc_table_bytes(queue.size), "descriptor");
    if (!desc) return tl::unexpected(desc.error());
    const auto avail = ring_part(
        queue.avail, packed() ? kEvents : avail_ring_bytes(queue.size), "available");
    if (!avail) return tl::unexpected(avail.error());
    const auto used =
        ring_part(queue.used, packed() ? kEvents : used_ring_bytes(queue.size), "used");
    if (!used) return tl::unexpected(used.error());
    const bool log = (acked_ & bit(VHOST_F_LOG_ALL)) != 0;
    return set(VHOST_USER_SET_VRING_ADDR,
               vhost_user_vring_addr{queue.index, log ? kVhostUserVringLog : 0u, *desc, *used,
                                     *avail, log ? queue.used.value : 0});
}

/// An index of a split ring, where the VMM believes the ring to be. With ring addresses that are
/// IOVAs this is whatever lies at that GPA, and a backend must not believe it.
std::optional<uint16_t> Frontend::read_index(BusAddress at) const {
    if (options_.ring_addresses == RingAddresses::kIova) return std::nullopt;
    const Gpa index{at.value + 2};
    for (const auto& r : regions_)
        if (r.contains(index, 2))
            return std::atomic_ref(*reinterpret_cast<uint16_t*>(r.data + (index - r.first)))
                .load(std::memory_order_relaxed);
    return std::nullopt;
}

/// Cloud Hypervisor reads avail.idx, or after a reconnection with IN_ORDER used.idx. QEMU keeps
/// what GET_VRING_BASE said, and when a backend was lost that could not be asked, it reads
/// used.idx. A packed ring has no such index: it stays with what was said last, and begins with
/// both wrap counters set, which Cloud Hypervisor, whose bases have 16 bits, could not say.
uint32_t Frontend::guess_base(const QueueSetup& queue) const {
    const bool qemu = options_.vmm == Vmm::kQemu;
    const auto said = bases_.find(queue.index);
    if (packed()) return said != bases_.end() ? said->second : qemu ? 0x8000'8000u : 0x8000u;
    if (reconnected_ && (qemu || RingFormat::of(acked_).in_order))
        return read_index(queue.used).value_or(said != bases_.end() ? uint16_t(said->second) : 0);
    if (qemu) return said != bases_.end() ? said->second : 0;
    return read_index(queue.avail).value_or(0);
}

Result<void> Frontend::set_ring_base(const QueueSetup& queue) {
    const uint32_t base = queue.base ? *queue.base : guess_base(queue);
    return set(VHOST_USER_SET_VRING_BASE, vhost_user_vring_state{queue.index, base});
}

Result<void> Frontend::set_ring_fd(uint32_t request, uint16_t queue, int fd) {
    return set(request, le64{queue}, std::span(&fd, 1));
}

Result<void> Frontend::enable(uint16_t queue, bool on) {
    return set(VHOST_USER_SET_VRING_ENABLE, vhost_user_vring_state{queue, on ? 1u : 0u});
}

Result<uint32_t> Frontend::get_vring_base(uint16_t queue) {
    const vhost_user_vring_state asked{queue, 0u};
    vhost_user_vring_state told{};
    if (auto ok = exchange(VHOST_USER_GET_VRING_BASE, bytes_of(asked), {}, writable_bytes_of(told));
        !ok)
        return tl::unexpected(ok.error());
    if (told.index != queue)
        return fail("{}: GET_VRING_BASE: asked about queue {}, told about {}", options_.socket,
                    queue, uint32_t(told.index));
    return uint32_t(told.num);
}

Result<void> Frontend::set_log_base(const DirtyLog& log) {
    const vhost_user_log body{log.bytes(), 0u};
    vhost_user_log reply{};
    const int fd = log.fd();
    // QEMU takes an answer of any size.
    const auto room = options_.vmm == Vmm::kQemu ? ReplySize::kAtMost : ReplySize::kExact;
    if (auto ok = exchange(VHOST_USER_SET_LOG_BASE, bytes_of(body), std::span(&fd, 1),
                           writable_bytes_of(reply), room);
        !ok)
        return ok;
    if (options_.vmm == Vmm::kCloudHypervisor && reply.mmap_size == 0)
        return fail("{}: SET_LOG_BASE: answered with a log of 0 bytes, which rust-vmm refuses",
                    options_.socket);
    return {};
}

Result<void> Frontend::start_logging(const DirtyLog& log) {
    if ((features_ & bit(VHOST_F_LOG_ALL)) == 0 || !negotiated(VHOST_USER_PROTOCOL_F_LOG_SHMFD))
        return fail("{}: the backend cannot log what it writes (LOG_ALL, LOG_SHMFD)",
                    options_.socket);
    if (auto ok = set_log_base(log); !ok) return ok;
    return set_logging(true);
}

Result<void> Frontend::stop_logging() { return set_logging(false); }

Result<void> Frontend::set_logging(bool on) {
    // Cloud Hypervisor switches off in the order inverse to switching on; QEMU does not.
    const bool features_first = on || options_.vmm == Vmm::kQemu;
    const uint64_t others = acked_ & ~bit(VHOST_F_LOG_ALL);
    const uint64_t wanted = on ? others | bit(VHOST_F_LOG_ALL) : others;
    if (features_first)
        if (auto ok = set_features(wanted); !ok) return ok;
    acked_ = wanted;
    for (const auto& q : active_)
        if (auto ok = set_ring_address(q); !ok) return ok;
    return features_first ? Result<void>{} : set_features(wanted);
}

Result<void> Frontend::set_backend_channel() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        return fail("socketpair: {}", std::strerror(errno));
    backend_requests_ = Channel(Fd(ends[0]), options_.timeout);
    const Fd theirs(ends[1]);
    const int fd = theirs.get();
    return exchange(VHOST_USER_SET_BACKEND_REQ_FD, {}, std::span(&fd, 1));
}

}  // namespace viommu::guest
