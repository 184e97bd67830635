// SPDX-License-Identifier: BSD-3-Clause
#include "stream.hh"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <random>

namespace viommu::e2e {

namespace {

constexpr size_t kSequenceAt = 14, kIdAt = 22, kDataAt = 26;

/// More than the longest packet, so that each begins somewhere else.
constexpr size_t kNoiseBytes = 1 << 18;

const std::vector<std::byte>& noise() {
    static const std::vector<std::byte> bytes = [] {
        std::vector<std::byte> b(kNoiseBytes);
        std::mt19937_64 rng(1);
        for (size_t i = 0; i < b.size(); i += 8) {
            const uint64_t v = rng();
            std::memcpy(b.data() + i, &v, 8);
        }
        return b;
    }();
    return bytes;
}

uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9;
    return x ^ (x >> 32);
}

}  // namespace

Stream::Stream(uint32_t id) : id_(id) {}

Stream::Hash Stream::start() {
    Hash hash(XXH3_createState());
    XXH3_128bits_reset(hash.get());
    return hash;
}

std::string Stream::digest(const XXH3_state_t& state) {
    const XXH128_hash_t h = XXH3_128bits_digest(&state);
    return fmt::format("{:016x}{:016x}", h.high64, h.low64);
}

uint32_t Stream::bytes_of(uint64_t sequence) const {
    const uint64_t r = mix(sequence * 0x100000001 + id_ + 1);
    if (r % 16 == 0) return kGiantBytes + uint32_t((r >> 8) % 500);
    // Small ones matter as much as large ones.
    const uint32_t most = r % 2 == 0 ? kMostBytes : 256;
    return kMinBytes + uint32_t((r >> 8) % (most - kMinBytes + 1));
}

uint32_t Stream::write(std::span<std::byte> room) {
    const uint64_t sequence = sent();
    const uint32_t bytes = bytes_of(sequence);
    assert(bytes <= room.size());
    const size_t from = mix(sequence ^ id_) % (kNoiseBytes - bytes);
    std::memcpy(room.data() + kDataAt, noise().data() + from, bytes - kDataAt);
    std::memset(room.data(), 0xff, 6);  // to everybody
    std::memset(room.data() + 6, 0x02, 6);
    room[12] = std::byte{0x88}, room[13] = std::byte{0xb5};  // for local experiments
    std::memcpy(room.data() + kSequenceAt, &sequence, 8);
    std::memcpy(room.data() + kIdAt, &id_, 4);
    digests_.push_back(XXH3_64bits(room.data(), bytes));
    XXH3_128bits_update(in_.get(), room.data(), bytes);
    sent_bytes_ += bytes;
    return bytes;
}

bool Stream::refuse(std::string why) {
    why_ = std::move(why);
    return false;
}

bool Stream::read(std::span<const std::byte> packet) {
    if (packet.size() < kDataAt)
        return refuse(fmt::format("a packet of {} bytes came", packet.size()));
    uint64_t sequence;
    uint32_t id;
    std::memcpy(&sequence, packet.data() + kSequenceAt, 8);
    std::memcpy(&id, packet.data() + kIdAt, 4);
    if (id != id_) return refuse(fmt::format("a packet of stream {} came in {}", id, id_));
    if (sequence >= sent())
        return refuse(fmt::format("packet {} came, {} were sent", sequence, sent()));
    if (sequence < expected_)
        return refuse(fmt::format("packet {} came again, or after {}", sequence, expected_ - 1));
    if (packet.size() != bytes_of(sequence))
        return refuse(fmt::format("packet {} came with {} bytes and was sent with {}", sequence,
                                  packet.size(), bytes_of(sequence)));
    if (XXH3_64bits(packet.data(), packet.size()) != digests_[sequence])
        return refuse(fmt::format("packet {} of {} bytes came changed", sequence, packet.size()));
    XXH3_128bits_update(out_.get(), packet.data(), packet.size());
    expected_ = sequence + 1;
    ++received_;
    return true;
}

}  // namespace viommu::e2e
