// SPDX-License-Identifier: BSD-3-Clause
#include "net_traffic.hh"

#include <rte_errno.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <cstring>

#include "clock.hh"

namespace viommu::perf {
namespace {

constexpr unsigned kPoolPackets = 4095, kPoolCache = 256;

/// Only one thread writes.
void add(std::atomic<uint64_t>& counter, uint64_t n) {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_release);
}

template <class Byte, class Mbuf>
std::span<Byte> bytes_of(Mbuf& segment) {
    return {rte_pktmbuf_mtod(&segment, Byte*), segment.data_len};
}

}  // namespace

const char* to_string(Way way) {
    switch (way) {
        case Way::kFromGuest:
            return "from the guest";
        case Way::kToGuest:
            return "to the guest";
        case Way::kBoth:
            return "both ways";
    }
    return "?";
}

std::byte Content::at(uint32_t offset, uint64_t number) {
    return std::byte((offset * 131 + (offset >> 8) * 7 + number * 29) & 0xff);
}

void Content::stamp(std::span<std::byte> head, uint64_t number) {
    std::memcpy(head.data() + kNumberAt, &number, sizeof number);
}

uint64_t Content::number(std::span<const std::byte> head) {
    uint64_t number;
    std::memcpy(&number, head.data() + kNumberAt, sizeof number);
    return number;
}

void Content::write(std::span<std::byte> piece, uint32_t offset, uint64_t number) {
    for (size_t i = 0; i < piece.size(); ++i) piece[i] = at(uint32_t(offset + i), number);
}

bool Content::is(std::span<const std::byte> piece, uint32_t offset, uint64_t number) {
    for (size_t i = 0; i < piece.size(); ++i) {
        const auto place = uint32_t(offset + i);
        const bool is_number = place >= kNumberAt && place < kNumberAt + sizeof number;
        if (!is_number && piece[i] != at(place, number)) return false;
    }
    return true;
}

Result<std::unique_ptr<PacketPools>> PacketPools::create() {
    std::unique_ptr<PacketPools> pools(new PacketPools);
    const auto make = [](const char* name) {
        return rte_pktmbuf_pool_create(name, kPoolPackets, kPoolCache, 0,
                                       RTE_PKTMBUF_HEADROOM + kMbufRoom, SOCKET_ID_ANY);
    };
    pools->from_ = make("perf_from_guest");
    pools->to_ = make("perf_to_guest");
    if (pools->from_ == nullptr || pools->to_ == nullptr)
        return fail("packet pools: {}", rte_strerror(rte_errno));
    return pools;
}

PacketPools::~PacketPools() {
    rte_mempool_free(from_);
    rte_mempool_free(to_);
}

Result<void> PacketPools::check_complete() const {
    for (const rte_mempool* pool : {from_, to_})
        if (const unsigned there = rte_mempool_avail_count(pool); there != kPoolPackets)
            return fail("{}: {} of {} packets did not come back", pool->name, kPoolPackets - there,
                        kPoolPackets);
    return {};
}

Traffic::~Traffic() {
    rte_pktmbuf_free_bulk(packets_.data(), waiting_);
}

void Traffic::set_thorough(bool on) {
    thorough_ = on;
    if (!on) return;
    // Those that are already made, too.
    for (unsigned i = 0; i < waiting_; ++i)
        write_all(*packets_[i], next_given_ - waiting_ + i);
}

void Traffic::write_all(rte_mbuf& packet, uint64_t number) noexcept {
    uint32_t at = 0;
    for (rte_mbuf* m = &packet; m != nullptr; m = m->next) {
        Content::write(bytes_of<std::byte>(*m), at, number);
        at += m->data_len;
    }
    Content::stamp(bytes_of<std::byte>(packet), number);
}

unsigned Traffic::round() noexcept {
    switch (mode_.load(std::memory_order_acquire)) {
        case Mode::kStill:
            return 0;
        case Mode::kFree: {
            quiet_.store(false, std::memory_order_relaxed);
            unsigned moved = 0;
            if (case_.from_guest()) moved += take();
            if (case_.to_guest()) moved += give();
            return moved;
        }
        case Mode::kDrain:
            quiet_.store(true, std::memory_order_release);
            return case_.from_guest() ? take() : 0;
        case Mode::kTurns:
            if (!turn_.load(std::memory_order_acquire)) return 0;
            take_turn();
            turn_.store(false, std::memory_order_release);
            return 1;
    }
    return 0;
}

void Traffic::take_turn() noexcept {
    const uint64_t start = Clock::ticks();
    if (case_.from_guest())
        while (take() != 0) {
        }
    if (case_.to_guest())
        while (give() == kPacketBurst) {
        }
    add(counts_.ticks, Clock::ticks() - start);
}

unsigned Traffic::take() noexcept {
    std::array<rte_mbuf*, kPacketBurst> packets;
    const unsigned n = backend_.from_guest(packets);
    if (n == 0) return 0;
    for (unsigned i = 0; i < n; ++i) {
        if (!look_at(*packets[i])) [[unlikely]]
            add(counts_.wrong, 1);
        ++next_taken_;
    }
    rte_pktmbuf_free_bulk(packets.data(), n);
    add(counts_.taken, n);
    return n;
}

bool Traffic::look_at(const rte_mbuf& packet) const noexcept {
    if (packet.pkt_len != case_.bytes) return false;
    if (Content::number(bytes_of<const std::byte>(packet)) != next_taken_) return false;
    if (!thorough_) return true;
    uint32_t at = 0;
    for (const rte_mbuf* m = &packet; m != nullptr; m = m->next) {
        if (!Content::is(bytes_of<const std::byte>(*m), at, next_taken_)) return false;
        at += m->data_len;
    }
    return at == case_.bytes;
}

unsigned Traffic::give() noexcept {
    if (waiting_ < kPacketBurst) refill();
    const unsigned n = backend_.to_guest(std::span(packets_).first(waiting_));
    if (n == 0) return 0;
    waiting_ -= n;
    std::copy_n(packets_.begin() + n, waiting_, packets_.begin());
    add(counts_.given, n);
    return n;
}

/// All of a burst, as from a source that never runs dry.
void Traffic::refill() noexcept {
    constexpr unsigned kMostPieces = 16;
    std::array<rte_mbuf*, kPacketBurst * kMostPieces> pieces;
    const unsigned each = (case_.bytes + kMbufRoom - 1) / kMbufRoom;
    const unsigned count = kPacketBurst - waiting_;
    if (each > kMostPieces ||
        rte_pktmbuf_alloc_bulk(&pools_.to_guest(), pieces.data(), count * each) != 0)
        return;
    for (unsigned i = 0; i < count; ++i) {
        rte_mbuf* const* piece = pieces.data() + i * each;
        uint32_t left = case_.bytes;
        for (unsigned k = 0; k < each; ++k) {
            piece[k]->data_len = uint16_t(std::min(left, kMbufRoom));
            left -= piece[k]->data_len;
            piece[k]->next = k + 1 < each ? piece[k + 1] : nullptr;
        }
        piece[0]->nb_segs = uint16_t(each);
        piece[0]->pkt_len = case_.bytes;
        if (thorough_)
            write_all(*piece[0], next_given_);
        else
            Content::stamp(bytes_of<std::byte>(*piece[0]), next_given_);
        ++next_given_;
        packets_[waiting_++] = piece[0];
    }
}

}  // namespace viommu::perf
