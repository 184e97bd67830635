// SPDX-License-Identifier: BSD-3-Clause
#include "flow.hh"

#include <cstring>

namespace viommu::pmd {
namespace {

/// FNV-1a.
uint64_t hash_of(std::span<const std::byte> bytes) {
    uint64_t hash = 0xcbf29ce484222325;
    for (const std::byte b : bytes) hash = (hash ^ uint64_t(b)) * 0x100000001b3;
    return hash;
}

}  // namespace

/// Ethernet header, number, random bytes, hash of all these.
uint32_t Flow::write(std::span<std::byte> room) {
    const size_t most = std::min(max_bytes_, room.size());
    const auto bytes = uint32_t(kMin + rng_() % (most - kMin + 1));
    for (auto& b : room.first(bytes)) b = std::byte(rng_());
    room[0] = room[6] = std::byte{2};  // individual addresses
    room[12] = std::byte{0x88};        // an EtherType for local experiments
    room[13] = std::byte{0xb5};
    std::memcpy(&room[kEthernet], &sent_, sizeof sent_);
    const uint64_t hash = hash_of(room.first(bytes - sizeof hash));
    std::memcpy(&room[bytes - sizeof hash], &hash, sizeof hash);
    ++sent_;
    return bytes;
}

void Flow::read(std::span<const std::byte> packet) {
    uint64_t number, hash;
    if (packet.size() < kMin) {
        wrong_ = fmt::format("a packet of {} bytes", packet.size());
        return;
    }
    std::memcpy(&number, &packet[kEthernet], sizeof number);
    std::memcpy(&hash, &packet[packet.size() - sizeof hash], sizeof hash);
    if (hash != hash_of(packet.first(packet.size() - sizeof hash)) || number >= sent_)
        wrong_ = fmt::format("a packet of {} bytes, number {}, was changed", packet.size(), number);
    else if (number != next_ && strict_)
        wrong_ = fmt::format("packet {} came instead of {}", number, next_);
    next_ = number + 1;
    ++received_;
}

Result<void> Flow::pump(uint64_t up_to) {
    const uint64_t under_way = sent_ - std::max(next_, written_off_);
    if (sent_ < up_to && under_way < kWindow) {
        const auto want = uint32_t(std::min({kBurst, up_to - sent_, kWindow - under_way}));
        const auto ok = from_->tx(pair_).transmit(
            want, [this](std::span<std::byte> room) { return write(room); });
        if (!ok) return tl::unexpected(ok.error());
    } else if (auto ok = from_->tx(pair_).reap(); !ok) {
        return ok;
    }
    const auto got =
        to_->rx(pair_).receive(kBurst, [this](std::span<const std::byte> packet) { read(packet); });
    if (!got) return tl::unexpected(got.error());
    if (!wrong_.empty()) return fail("pair {}: {}", pair_, wrong_);
    return {};
}

Result<void> Flow::deliver(uint64_t count) {
    const uint64_t target = sent_ + count;
    guest::Patience patience(guest::Milliseconds(30000));
    while (next_ < target) {
        const uint64_t before = received_;
        if (auto ok = pump(target); !ok) return ok;
        if (received_ != before)
            patience.renew();
        else if (!patience.wait())
            return fail("pair {}: {} of {} packets have arrived", pair_, next_, target);
    }
    return {};
}

Result<void> Flow::recover() {
    strict_ = false;
    written_off_ = sent_;
    // Until one arrives that was sent after that; then the way is free for those behind it.
    guest::Patience patience(guest::Milliseconds(30000));
    while (next_ <= written_off_) {
        if (auto ok = pump(UINT64_MAX); !ok) return ok;
        if (!patience.wait()) return fail("pair {}: nothing arrives any more", pair_);
    }
    if (auto ok = deliver(0); !ok) return ok;
    strict_ = true;
    return {};
}

}  // namespace viommu::pmd
