// SPDX-License-Identifier: BSD-3-Clause
/// What the fuzz targets of both ring formats share: where everything lies, what a guest that
/// follows no rule writes, what a chain must be whatever was in memory, and what it should be.
#pragma once

#include <deque>

#include "hostile_space.hh"

namespace viommu::fuzz {

using virtq::Pop;
using virtq::Segment;

constexpr uint64_t kDescAt = 0x10000000, kAvailAt = 0x20000000, kUsedAt = 0x30000000;
constexpr uint64_t kDataAt = 0x40000000, kTableAt = 0x50000000;
constexpr uint64_t kDataBytes = 3 * 4096, kTableBytes = 2 * 4096;

constexpr uint16_t kNext = 1, kWrite = 2, kIndirect = 4;

/// A ring's addresses and the memory around it.
struct Guest {
    Guest(Input& in, uint32_t ring_size, uint64_t ring_features)
        : size(ring_size), features(ring_features) {
        const uint8_t how = in.take();
        scattered = (how & 1) != 0;
        vring.size = size;
        vring.desc = kDescAt + ((how & 2) != 0 ? 4080 : 0);
        vring.avail = kAvailAt + ((how & 4) != 0 ? 4092 : 0);
        vring.used = kUsedAt + ((how & 8) != 0 ? 4092 : 0);
        space.add(kDataAt, kDataBytes, true);
        space.add(kTableAt, kTableBytes, (how & 16) != 0);
    }

    bool event_idx() const { return virtq::negotiated(features, wire::VIRTIO_F_EVENT_IDX); }

    /// An address of a buffer or a table, mostly one that is there.
    uint64_t buffer(Input& in) const {
        const uint8_t b = in.take();
        if (b < 160) return kDataAt + uint64_t{b} * 77;
        if (b < 176) return kDataAt + 4096 - (b - 160);
        if (b < 192) return kDataAt + kDataBytes - (b - 176) * 5;
        if (b < 224) return kTableAt + uint64_t(b - 192) * 16;
        return in.one_of<uint64_t>({0, ~uint64_t{0}, ~uint64_t{0} - 15, vring.desc, vring.avail,
                                    vring.used, kTableAt + 4096 - 8, kTableAt + kTableBytes - 16});
    }
    static uint32_t length(Input& in) {
        const uint8_t b = in.take();
        if (b < 64) return b;
        if (b < 128) return (b - 64) * 16u;  // of tables
        if (b < 240) return (b - 128) * 97u;
        return in.one_of<uint32_t>({~0u, 0x80000000, 0xfffffff0, 16384 * 16, 65536, 0x10001 * 16});
    }
    static uint16_t flags(Input& in) {
        const uint8_t b = in.take();
        return b < 224 ? b & (kNext | kWrite) : b < 250 ? b & 7 : uint16_t(b | in.take() << 8);
    }
    /// An address where the guest changes its mind.
    uint64_t sensitive(Input& in) const {
        const uint64_t bases[] = {vring.desc, vring.avail, vring.used, kTableAt, kTableAt + 4080};
        return bases[in.below(5)] + in.take() * 2u;
    }
    /// One to four changes that happen while the device reads.
    void be_quick(Input& in) {
        space.changes.clear();
        space.changed = space.resolves = 0;
        space.asked = 0;
        const uint8_t b = in.take();
        for (unsigned n = b < 192 ? 0 : b % 4 + 1; n > 0; --n) {
            const uint64_t addr = sensitive(in);
            space.changes.push_back({addr, in.take<uint16_t>()});
        }
    }
    /// Data or table memory goes away and comes back.
    void remap(Input& in) {
        const bool table = in.one_in(2);
        const uint64_t page = in.below(table ? 2 : 3) * 4096;
        space.allow((table ? kTableAt : kDataAt) + page, 1,
                    in.one_of({Access::kReadWrite, Access::kNone, Access::kRead, Access::kWrite}));
    }

    HostileSpace space;
    virtq::Vring vring;
    const uint32_t size;
    const uint64_t features;
    bool scattered;
};

/// What a chain is said to be.
struct ChainModel {
    std::vector<Segment> readable, writable;
    uint64_t bytes = 0;

    /// As virtq::Chain::append().
    bool append(uint64_t addr, uint32_t len, bool write) {
        if (!write && !writable.empty()) return false;
        if (len == 0) return true;
        if (addr + (len - 1) < addr) return false;
        (write ? writable : readable).push_back({addr, len});
        bytes += len;
        return bytes <= uint64_t{1} << 32;
    }
};

/// Promises of a chain whatever the guest did meanwhile.
inline void check_chain(const virtq::Chain& chain, uint32_t size) {
    uint64_t sums[2] = {};
    size_t count = 0;
    for (const auto part : {chain.readable(), chain.writable()}) {
        for (const Segment& s : part) {
            require(s.len > 0 && s.addr + (s.len - 1) >= s.addr, "a segment is empty or wraps");
            sums[&s >= chain.writable().data()] += s.len;
            ++count;
        }
    }
    require(sums[0] == chain.readable_bytes() && sums[1] == chain.writable_bytes(),
            "a chain's bytes are not the sum of its segments'");
    require(sums[0] + sums[1] <= uint64_t{1} << 32, "a chain of {} bytes", sums[0] + sums[1]);
    require(count <= std::max(size, virtq::Chain::kMinSegments), "a chain of {} segments", count);
}

inline void check_same(std::span<const Segment> got, const std::vector<Segment>& want,
                       const char* what) {
    require(got.size() == want.size(), "{} {} segments, not {}", got.size(), what, want.size());
    for (size_t i = 0; i < got.size(); ++i)
        require(got[i].addr == want[i].addr && got[i].len == want[i].len,
                "{} segment {}: {:#x}+{:#x}, not {:#x}+{:#x}", what, i, got[i].addr, got[i].len,
                want[i].addr, want[i].len);
}

/// Read a chain and write its answer, byte by byte as the space allows.
template <class Queue>
void use_chain(Guest& guest, Queue& queue, const virtq::Chain& chain, Input& in) {
    HostileSpace& space = guest.space;
    guest.be_quick(in);
    std::vector<std::byte> copy(in.take() * 4u);
    const bool quick = !space.changes.empty();
    std::vector<std::byte> want;
    bool faulted = false;
    for (const Segment& s : chain.readable()) {
        for (uint32_t i = 0; i < s.len && want.size() < copy.size() && !faulted; ++i) {
            const auto byte = space.get<uint8_t>(s.addr + i, Access::kRead);
            faulted = !byte;
            if (byte) want.push_back(std::byte(*byte));
        }
        if (faulted || want.size() == copy.size()) break;
    }
    const auto in_copied = queue.gather(chain.readable(), copy);
    require(in_copied.bytes == want.size() && in_copied.faulted == faulted,
            "gathered {} bytes, faulted {}; not {}, {}", in_copied.bytes, in_copied.faulted,
            want.size(), faulted);
    if (!quick)
        require(std::equal(want.begin(), want.end(), copy.begin()), "gathered something else");
    // One for each segment, and for each page that one goes on in.
    require(space.resolves <= 2 * chain.readable().size() + 4 + copy.size() / 4096,
            "{} look-ups to gather {} bytes", space.resolves, copy.size());
    space.verify("gather()");

    guest.be_quick(in);
    const bool quick_again = !space.changes.empty();
    std::vector<std::byte> reply(in.take() * 4u);
    for (size_t i = 0; i < reply.size(); ++i) reply[i] = std::byte(0x80 | i);
    const auto out = queue.scatter(reply, chain.writable());
    size_t done = 0;
    faulted = false;
    for (const Segment& s : chain.writable()) {
        for (uint32_t i = 0; i < s.len && done < reply.size() && !faulted; ++i) {
            faulted = !space.accessible(s.addr + i, Access::kWrite);
            if (!faulted) space.expect(s.addr + i, reply[done++]);
        }
        if (faulted || done == reply.size()) break;
    }
    require(out.bytes == done && out.faulted == faulted, "scattered {} bytes, not {}", out.bytes,
            done);
    if (quick_again)
        space.accept_all();  // who wrote last depends on where the change fell
    else
        space.verify("scatter()");
    space.changes.clear();
}

}  // namespace viommu::fuzz
