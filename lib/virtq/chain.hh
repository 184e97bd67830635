// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

#include "address_space.hh"

namespace viommu::virtq {

/// One buffer of a chain, an address of the queue's space. Does not wrap; len > 0.
struct Segment {
    uint64_t addr;
    uint32_t len;
};

/// Who has read so many descriptors of one ring turns to others when the chain is complete: a guest
/// cannot keep an lcore, or a reader in its section, by long chains. 512 chains of the 32 segments
/// that a driver may use for one packet.
inline constexpr uint32_t kBurstDescriptors = 16384;

/// A chain that was taken: all that is needed to return it.
struct Taken {
    uint16_t id = 0;     ///< split: index of its head; packed: the buffer id. The guest's word
    uint16_t slots = 1;  ///< packed: how many descriptors of the ring it occupies
};

/// A descriptor chain as it was when it was taken: a private copy, the guest cannot change it.
/// It has room for as many segments as its queue has descriptors (reserve() that, outside of the
/// packet path), and for 16 KiB of them from the start. Keep one per thread of work.
class Chain {
  public:
    /// A chain may have so many descriptors even where the queue has fewer: Linux makes longer
    /// indirect tables than its queue is, although 2.7.5.3.1 forbids it, and other devices take it.
    static constexpr uint32_t kMinSegments = 1024;
    /// Spec: 2.7.5 "the driver MUST NOT add a descriptor chain longer than 2^32 bytes in total".
    static constexpr uint64_t kMaxBytes = uint64_t{1} << 32;

    Chain() : segments_(new Segment[kMinSegments]) {}
    Chain(const Chain&) = delete;
    Chain& operator=(const Chain&) = delete;

    /// Hold any chain of a queue of `size`. Allocates; empties the chain. Longer chains than there
    /// is room for are malformed.
    void reserve(uint32_t size) {
        begin({});
        if (size <= room_) return;
        segments_.reset(new Segment[size]);
        room_ = size;
    }

    const Taken& taken() const noexcept { return taken_; }
    uint16_t head() const noexcept { return taken_.id; }
    std::span<const Segment> readable() const noexcept { return {segments_.get(), readable_}; }
    std::span<const Segment> writable() const noexcept {
        return {segments_.get() + readable_, size_t(count_ - readable_)};
    }
    uint64_t readable_bytes() const noexcept { return readable_bytes_; }
    uint64_t writable_bytes() const noexcept { return writable_bytes_; }
    /// Descriptors that were read for it, empty and superfluous ones included: bounds the work that
    /// a guest causes.
    uint32_t descriptors() const noexcept { return descriptors_; }

    /// Begin anew, as the chain that `taken` says.
    void begin(Taken taken) noexcept {
        taken_ = taken;
        count_ = readable_ = descriptors_ = 0;
        readable_bytes_ = writable_bytes_ = 0;
    }
    /// False when the buffer makes the chain malformed: it wraps, is readable after a writable one,
    /// or there are too many segments or bytes. Empty buffers are left out.
    bool append(uint64_t addr, uint32_t len, bool writable) noexcept {
        ++descriptors_;
        if (!writable && count_ != readable_) return false;
        if (len == 0) return true;
        if (addr + (len - 1) < addr || count_ == room_) return false;
        segments_[count_++] = {addr, len};
        readable_ += !writable;
        (writable ? writable_bytes_ : readable_bytes_) += len;
        return readable_bytes_ + writable_bytes_ <= kMaxBytes;
    }
    /// Count a descriptor of a malformed chain.
    void pass_over() noexcept { ++descriptors_; }
    /// A packed chain tells only in its last descriptor what it is.
    void retake(Taken taken) noexcept { taken_ = taken; }

  private:
    Taken taken_;
    uint32_t count_ = 0;
    uint32_t readable_ = 0;
    uint32_t descriptors_ = 0;
    uint32_t room_ = kMinSegments;
    uint64_t readable_bytes_ = 0;
    uint64_t writable_bytes_ = 0;
    std::unique_ptr<Segment[]> segments_;
};

/// Copy guest memory once: whatever is decided about `out` afterwards, the compiler may not look at
/// `in` again for it.
inline void copy_once(void* out, const void* in, size_t bytes) noexcept {
    std::memcpy(out, in, bytes);
    asm volatile("" : : "r"(out) : "memory");
}

/// A place in a list of segments, for one pass over their first `limit` bytes.
///
/// Addresses are resolved as the pass reaches them, at most `limit` bytes of them. The pieces are
/// valid as long as the space says. After a fault the cursor stays where it is.
template <AddressSpace Space, Access kNeed>
class Cursor {
  public:
    Cursor(Space& space, std::span<const Segment> segments, uint64_t limit) noexcept
        : space_(space), rest_(segments), left_(limit) {}

    /// The next piece of our memory, at most `bytes` (> 0). Empty: the end, or a fault.
    std::span<std::byte> take(size_t bytes) noexcept {
        if (window_.empty() && !advance()) [[unlikely]]
            return {};
        const auto piece = window_.first(std::min(bytes, window_.size()));
        window_ = window_.subspan(piece.size());
        return piece;
    }

    /// Copy out of the segments. Less than out.size(): the end, or a fault.
    size_t read(std::span<std::byte> out) noexcept requires(allows(kNeed, Access::kRead)) {
        return pass(out.size(), [&](size_t at, std::span<std::byte> piece) {
            copy_once(out.data() + at, piece.data(), piece.size());
        });
    }
    /// Copy into the segments. Less than in.size(): the end, or a fault.
    size_t write(std::span<const std::byte> in) noexcept requires(allows(kNeed, Access::kWrite)) {
        return pass(in.size(), [&](size_t at, std::span<std::byte> piece) {
            std::memcpy(piece.data(), in.data() + at, piece.size());
            wrote(space_, piece);
        });
    }
    /// Pass over bytes that must be accessible but are of no interest.
    size_t skip(size_t bytes) noexcept {
        return pass(bytes, [](size_t, std::span<std::byte>) {});
    }

    /// An address did not resolve.
    bool faulted() const noexcept { return faulted_; }

  private:
    template <class F>
    size_t pass(size_t bytes, F&& copy) noexcept {
        size_t done = 0;
        while (done < bytes) {
            const auto piece = take(bytes - done);
            if (piece.empty()) break;
            copy(done, piece);
            done += piece.size();
        }
        return done;
    }

    bool advance() noexcept {
        if (faulted_ || left_ == 0 || rest_.empty()) return false;
        const Segment& s = rest_.front();
        window_ =
            space_.resolve(s.addr + offset_, std::min<uint64_t>(s.len - offset_, left_), kNeed);
        faulted_ = window_.empty();
        left_ -= window_.size();
        offset_ += uint32_t(window_.size());
        if (offset_ == s.len) {
            rest_ = rest_.subspan(1);
            offset_ = 0;
        }
        return !faulted_;
    }

    Space& space_;
    std::span<const Segment> rest_;  // not all of the first is resolved
    uint32_t offset_ = 0;            // resolved bytes of rest_.front()
    uint64_t left_;                  // of the limit, not resolved yet
    std::span<std::byte> window_;    // resolved, not passed yet
    bool faulted_ = false;
};

/// What gather() and scatter() did.
struct Copied {
    size_t bytes;  ///< less than asked for when the segments hold less, or at a fault
    bool faulted;  ///< an address did not resolve; nothing after it was touched
};

/// Copy the beginning of `from` to a private place.
template <AddressSpace Space>
Copied gather(Space& space, std::span<const Segment> from, std::span<std::byte> to) noexcept {
    Cursor<Space, Access::kRead> cursor(space, from, to.size());
    const size_t bytes = cursor.read(to);
    return {bytes, cursor.faulted()};
}

/// Copy `from` to the beginning of `to`.
template <AddressSpace Space>
Copied scatter(Space& space, std::span<const std::byte> from,
               std::span<const Segment> to) noexcept {
    Cursor<Space, Access::kWrite> cursor(space, to, from.size());
    const size_t bytes = cursor.write(from);
    return {bytes, cursor.faulted()};
}

}  // namespace viommu::virtq
