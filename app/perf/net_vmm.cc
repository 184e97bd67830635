// SPDX-License-Identifier: BSD-3-Clause
#include "net_vmm.hh"

#include <fcntl.h>
#include <sys/socket.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

namespace viommu::perf {

using namespace wire;

namespace {

constexpr uint64_t kPageBytes = guest::kPageBytes;
constexpr uint32_t kIotlbMsg = 22;        // VHOST_USER_IOTLB_MSG
constexpr uint32_t kBackendIotlbMsg = 1;  // VHOST_USER_BACKEND_IOTLB_MSG
constexpr uint8_t kMiss = 1, kUpdate = 2, kInvalidate = 3;
constexpr uint8_t kReadWrite = 3;

/// vhost_iotlb_msg of <linux/vhost_types.h>, in the machine's byte order as all of vhost-user.
struct vhost_iotlb_msg {
    uint64_t iova, size, uaddr;
    uint8_t perm, type;
    uint8_t padding[6];
};
static_assert(sizeof(vhost_iotlb_msg) == 32);

uint64_t page_in_window(uint64_t iova) { return (iova - kNetWindow.first.value) / kPageBytes; }
bool in_window(uint64_t iova) {
    return iova >= kNetWindow.first.value && iova <= kNetWindow.last.value;
}

}  // namespace

/// As it is sent: the body is not aligned as its members would be.
struct IotlbVmm::Message {
    vhost_user_header header;
    std::array<std::byte, sizeof(vhost_iotlb_msg)> body;

    static Message of(const vhost_iotlb_msg& body) {
        constexpr uint32_t kFlags = kVhostUserVersion | kVhostUserNeedReply;
        return {{kIotlbMsg, kFlags, sizeof body},
                std::bit_cast<std::array<std::byte, sizeof body>>(body)};
    }
};

Result<void> IotlbVmm::open_channel(guest::Frontend& frontend, guest::Memory& memory) {
    frontend_ = &frontend;
    memory_ = &memory;
    pages_.resize(page_in_window(kNetWindow.last.value) + 1);
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return fail("socketpair: {}", std::strerror(errno));
    channel_ = Fd(ends[0]);
    const Fd theirs(ends[1]);
    const int fd = theirs.get();
    return frontend.exchange(VHOST_USER_SET_BACKEND_REQ_FD, {}, std::span(&fd, 1));
}

/// Answers are then waited for in recv(), which takes one system call instead of three.
Result<void> IotlbVmm::take_over() {
    const int fd = frontend_->raw().fd();
    if (::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK) != 0)
        return fail("fcntl: {}", std::strerror(errno));
    return {};
}

void IotlbVmm::map(uint64_t first, uint64_t bytes, Gpa gpa) {
    const Mapping mapping{first, bytes, gpa};
    if (!in_window(first))
        whole_ = mapping;
    else
        for (uint64_t at = 0; at < bytes; at += kPageBytes)
            pages_[page_in_window(first + at)] = mapping;
}

void IotlbVmm::forget(uint64_t first) {
    const Mapping mapping = pages_[page_in_window(first)];
    for (uint64_t at = 0; at < mapping.bytes; at += kPageBytes)
        pages_[page_in_window(first + at)] = {};
}

const IotlbVmm::Mapping* IotlbVmm::find(uint64_t iova) const {
    const Mapping& m = in_window(iova) ? pages_[page_in_window(iova)] : whole_;
    return iova - m.first < m.bytes ? &m : nullptr;
}

Result<void> IotlbVmm::exchange(const Message& message) {
    const int fd = frontend_->raw().fd();
    if (::send(fd, &message, sizeof message, MSG_NOSIGNAL) != ssize_t(sizeof message))
        return fail("IOTLB message: {}", std::strerror(errno));
    struct {
        vhost_user_header header;
        std::array<std::byte, sizeof(uint64_t)> ack;
    } answer;
    if (::recv(fd, &answer, sizeof answer, MSG_WAITALL) != ssize_t(sizeof answer))
        return fail("IOTLB message: no answer: {}", std::strerror(errno));
    if (answer.header.request != kIotlbMsg || std::bit_cast<uint64_t>(answer.ack) != 0)
        return fail("IOTLB message: refused");
    return {};
}

Result<void> IotlbVmm::invalidate(uint64_t first, uint64_t bytes) {
    return exchange(Message::of({first, bytes, 0, 0, kInvalidate, {}}));
}

/// Read and write always: librte_vhost asks for both where a driver has given the one.
Result<void> IotlbVmm::update(const Mapping& m) {
    const auto uva = memory_->uva(m.gpa, m.bytes);
    if (!uva) return fail("IOVA {:#x} is not mapped to memory", m.first);
    return exchange(Message::of({m.first, m.bytes, uva->value, kReadWrite, kUpdate, {}}));
}

Result<void> IotlbVmm::push(uint64_t first) {
    const Mapping* mapping = find(first);
    return mapping != nullptr ? update(*mapping) : fail("IOVA {:#x} is not mapped", first);
}

Result<bool> IotlbVmm::attend() {
    bool any = false;
    for (;;) {
        Message miss;
        const ssize_t n = ::recv(channel_.get(), &miss, sizeof miss, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return any;
        // 22.11 says 0 for the size of the body; the body is there.
        const auto body = std::bit_cast<vhost_iotlb_msg>(miss.body);
        if (n != ssize_t(sizeof miss) || miss.header.request != kBackendIotlbMsg ||
            body.type != kMiss)
            return fail("the backend's channel: {} bytes that are no miss", n);
        any = true;
        const uint64_t iova = body.iova;
        const Mapping* mapping = find(iova);
        if (mapping == nullptr) return fail("the backend wants IOVA {:#x}, not mapped", iova);
        if (auto ok = update(*mapping); !ok) return tl::unexpected(ok.error());
    }
}

// ---- the guest's Dma

Result<guest::DmaBlock> IotlbDma::allocate(uint64_t bytes) {
    auto block = guest::allocate_block(memory_, bytes, guest::Placement::kContiguous);
    if (!block) return block;
    const uint64_t pages = block->pages.size();
    const auto first = iovas_.take(pages);
    if (!first) return tl::unexpected(first.error());
    block->bus = {first->value};
    vmm_.map(first->value, pages * kPageBytes, block->pages[0]);
    return block;
}

Result<void> IotlbDma::release(const guest::DmaBlock& block) {
    guest::release_block(memory_, block);
    return {};
}

Result<guest::BusAddress> IotlbDma::map(Gpa gpa, uint64_t bytes, Access) {
    const uint64_t offset = gpa.value % kPageBytes;
    const uint64_t pages = (offset + bytes + kPageBytes - 1) / kPageBytes;
    const auto first = iovas_.take(pages);
    if (!first) return tl::unexpected(first.error());
    vmm_.map(first->value, pages * kPageBytes, gpa - offset);
    return guest::BusAddress{first->value + offset};
}

Result<void> IotlbDma::unmap(guest::BusAddress bus, uint64_t bytes) {
    const uint64_t offset = bus.value % kPageBytes;
    freed_.push_back({Iova{bus.value - offset}, (offset + bytes + kPageBytes - 1) / kPageBytes});
    return strict_ ? sync() : Result<void>{};
}

Result<void> IotlbDma::sync() {
    if (freed_.empty()) return {};
    // First it is no longer mapped, then nobody has it.
    for (const Freed& f : freed_) vmm_.forget(f.first.value);
    uint64_t low = UINT64_MAX, high = 0;
    for (const Freed& f : freed_) {
        low = std::min(low, f.first.value);
        high = std::max(high, f.first.value + f.pages * kPageBytes);
        if (iotlb_ == Iotlb::kEach)
            if (auto ok = vmm_.invalidate(f.first.value, f.pages * kPageBytes); !ok) return ok;
    }
    if (iotlb_ == Iotlb::kFlush)
        if (auto ok = vmm_.invalidate(low, high - low); !ok) return ok;
    for (const Freed& f : freed_) iovas_.give_back(f.first, f.pages);
    freed_.clear();
    return {};
}

}  // namespace viommu::perf
