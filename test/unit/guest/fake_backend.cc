// SPDX-License-Identifier: BSD-3-Clause
#include "fake_backend.hh"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace viommu::guest::test {

using namespace wire;

namespace {

template <class T>
T body_of(const Message& message) {
    T body{};
    EXPECT_GE(message.payload.size(), sizeof body);
    std::memcpy(&body, message.payload.data(), std::min(sizeof body, message.payload.size()));
    return body;
}

}  // namespace

FakeBackend::FakeBackend(BackendOptions options) : options_(std::move(options)) {
    char name[] = "/tmp/viommu-guest-test-XXXXXX";
    directory_ = ::mkdtemp(name);
    path_ = directory_ + "/socket";
    listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 4), 0);
    thread_ = std::thread([this] { serve(); });
}

FakeBackend::~FakeBackend() {
    stop_ = true;
    thread_.join();
    ::unlink(path_.c_str());
    ::rmdir(directory_.c_str());
}

void FakeBackend::serve() {
    while (!stop_) {
        if (!channel_.is_open()) {
            Fd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
            if (peer) channel_ = Channel(std::move(peer), Milliseconds(2000));
        }
        bool busy = false;
        if (channel_.is_open() && channel_.readable(Milliseconds(0))) {
            busy = true;
            if (!receive_message()) drop_connection();
        }
        busy |= run_devices();
        if (!busy) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    drop_connection();
}

void FakeBackend::drop_connection() {
    channel_.close();
    rings_.clear();
    for (const auto& r : regions_) ::munmap(r.data, r.bytes);
    regions_.clear();
    const std::lock_guard lock(mutex_);
    if (log_.data != nullptr) ::munmap(log_.data, log_.bytes);
    log_ = {};
}

bool FakeBackend::receive_message() {
    vhost_user_header header;
    std::vector<Fd> fds;
    if (!channel_.receive(std::as_writable_bytes(std::span(&header, 1)), &fds)) return false;
    Message message{header.request, header.flags, std::vector<std::byte>(header.size), 0};
    if (!channel_.receive(message.payload, &fds)) return false;
    message.fds = fds.size();
    {
        const std::lock_guard lock(mutex_);
        seen_.push_back(message);
    }
    handle(message, fds);
    return channel_.is_open();
}

void FakeBackend::handle(const Message& message, std::vector<Fd>& fds) {
    Reply reply{message.request, kVhostUserVersion | kVhostUserReply, act(message, fds)};
    const bool expected = !reply.payload.empty();
    if (!expected) reply.payload = payload_of(le64{0});
    reply.silent = !expected && (message.flags & kVhostUserNeedReply) == 0;
    if (options_.answer)
        if (auto special = options_.answer(message)) reply = *special;
    if (!reply.silent) {
        const vhost_user_header header{reply.request, reply.flags, uint32_t(reply.payload.size())};
        auto bytes = payload_of(header);
        bytes.insert(bytes.end(), reply.payload.begin(), reply.payload.end());
        // The peer may have closed: that is its test.
        (void)channel_.send(bytes);
    }
    if (reply.hang_up) channel_.close();
}

/// Returns the typed reply, if the message has one.
std::vector<std::byte> FakeBackend::act(const Message& m, std::vector<Fd>& fds) {
    switch (m.request) {
        case VHOST_USER_GET_FEATURES:
            return payload_of(le64{options_.features});
        case VHOST_USER_GET_PROTOCOL_FEATURES:
            return payload_of(le64{options_.protocol_features});
        case VHOST_USER_GET_QUEUE_NUM:
            return payload_of(le64{options_.queue_num});
        case VHOST_USER_GET_CONFIG: {
            const auto head = body_of<vhost_user_config_header>(m);
            auto reply = m.payload;
            const std::lock_guard lock(mutex_);
            for (uint32_t i = 0; i < head.size && head.offset + i < options_.config.size(); ++i)
                reply[sizeof head + i] = options_.config[head.offset + i];
            return reply;
        }
        case VHOST_USER_SET_CONFIG: {
            const auto head = body_of<vhost_user_config_header>(m);
            const std::lock_guard lock(mutex_);
            for (uint32_t i = 0; i < head.size; ++i)
                options_.config.at(head.offset + i) = m.payload[sizeof head + i];
            break;
        }
        case VHOST_USER_SET_FEATURES:
            acked_ = body_of<le64>(m);
            break;
        case VHOST_USER_SET_MEM_TABLE:
            map_memory(m, fds);
            break;
        case VHOST_USER_SET_VRING_NUM: {
            const auto state = body_of<vhost_user_vring_state>(m);
            rings_[state.index].size = uint16_t(state.num);
            rings_[state.index].queue.reset();
            break;
        }
        case VHOST_USER_SET_VRING_BASE: {
            const auto state = body_of<vhost_user_vring_state>(m);
            rings_[state.index].base = state.num;
            rings_[state.index].queue.reset();
            break;
        }
        case VHOST_USER_SET_VRING_ADDR: {
            const auto addr = body_of<vhost_user_vring_addr>(m);
            rings_[addr.index].addr = addr;
            break;
        }
        case VHOST_USER_SET_VRING_ENABLE: {
            const auto state = body_of<vhost_user_vring_state>(m);
            auto& ring = rings_[state.index];
            ring.enabled = state.num != 0;
            if (ring.enabled && ring.size != 0 && !ring.queue) start(state.index);
            break;
        }
        case VHOST_USER_GET_VRING_BASE: {
            auto state = body_of<vhost_user_vring_state>(m);
            auto& ring = rings_[state.index];
            if (ring.queue) ring.base = ring.queue->next();
            ring.queue.reset();
            state.num = ring.base;
            return payload_of(state);
        }
        case VHOST_USER_GET_MAX_MEM_SLOTS:
            return payload_of(le64{8});
        case VHOST_USER_ADD_MEM_REG:
            EXPECT_EQ(fds.size(), 1u);
            if (!fds.empty()) add_region(body_of<vhost_user_mem_reg>(m).region, fds[0]);
            break;
        case VHOST_USER_SET_LOG_BASE: {
            EXPECT_EQ(fds.size(), 1u);
            if (!fds.empty()) map_log(m, fds[0]);
            auto reply = m.payload;
            reply.resize(options_.log_reply_bytes);
            return reply;
        }
        default:
            break;
    }
    return {};
}

void FakeBackend::map_memory(const Message& m, std::vector<Fd>& fds) {
    const auto head = body_of<vhost_user_mem_header>(m);
    ASSERT_EQ(fds.size(), head.num_regions);
    for (const auto& r : regions_) ::munmap(r.data, r.bytes);
    regions_.clear();
    for (uint32_t i = 0; i < head.num_regions; ++i) {
        vhost_user_mem_region r;
        std::memcpy(&r, m.payload.data() + sizeof head + i * sizeof r, sizeof r);
        add_region(r, fds[i]);
    }
}

void FakeBackend::add_region(const vhost_user_mem_region& r, const Fd& fd) {
    void* at = ::mmap(nullptr, r.memory_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(),
                      off_t(r.mmap_offset));
    ASSERT_NE(at, MAP_FAILED);
    regions_.push_back(
        {r.guest_phys_addr, r.memory_size, r.userspace_addr, static_cast<std::byte*>(at)});
}

void FakeBackend::map_log(const Message& m, const Fd& fd) {
    const auto log = body_of<vhost_user_log>(m);
    const std::lock_guard lock(mutex_);
    if (log_.data != nullptr) ::munmap(log_.data, log_.bytes);
    void* at = ::mmap(nullptr, log.mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(),
                      off_t(log.mmap_offset));
    ASSERT_NE(at, MAP_FAILED);
    log_ = {static_cast<std::byte*>(at), log.mmap_size};
}

std::byte* FakeBackend::at_bus(uint64_t bus) const {
    const auto gpa = options_.translate ? options_.translate(bus) : Gpa{bus};
    if (!gpa) return nullptr;
    for (const auto& r : regions_)
        if (gpa->value - r.gpa < r.bytes) return r.data + (gpa->value - r.gpa);
    return nullptr;
}

uint64_t FakeBackend::bus_of(uint64_t ring_address) const {
    if ((acked_ & bit(VIRTIO_F_ACCESS_PLATFORM)) != 0) return ring_address;
    for (const auto& r : regions_)
        if (ring_address - r.uva < r.bytes) return ring_address - r.uva + r.gpa;
    ADD_FAILURE() << "ring address is not in the memory table";
    return 0;
}

void FakeBackend::start(uint32_t index) {
    auto& ring = rings_[index];
    const auto look_up = [this](uint64_t bus) { return at_bus(bus); };
    // The base of a translated split ring may be a guess: it begins where its used ring ends.
    const auto format = RingFormat::of(acked_);
    uint32_t base = ring.base;
    if (options_.translate && !format.packed)
        base = reinterpret_cast<const le16&>(*at_bus(bus_of(ring.addr.used) + 2));
    ring.queue.emplace(ring.size, bus_of(ring.addr.desc), bus_of(ring.addr.avail),
                       bus_of(ring.addr.used), look_up, look_up, base, format);
}

bool FakeBackend::run_devices() {
    bool busy = false;
    for (auto& [index, device] : options_.devices)
        if (const auto ring = rings_.find(index);
            ring != rings_.end() && ring->second.queue && ring->second.enabled)
            busy |= device(*ring->second.queue);
    return busy;
}

}  // namespace viommu::guest::test
