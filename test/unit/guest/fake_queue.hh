// SPDX-License-Identifier: BSD-3-Clause
/// The device's side of a virtqueue, split or packed, as slow and as plain as it can be: every byte
/// is looked up on its own, and every position is walked to. The oracle for DriverQueue, and the
/// engine of the fake devices.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>

#include "viommu_guest.hh"

namespace viommu::guest::test {

/// Our pointer to one byte of the device's address space; null: not there.
using Translate = std::function<std::byte*(uint64_t address)>;

struct FakeChain {
    uint16_t head = 0;  ///< split: first descriptor; packed: buffer ID
    uint16_t descriptors = 0;
    std::vector<Segment> readable, writable;
    bool indirect = false;

    uint64_t writable_bytes() const { return total_bytes(writable); }
};

class FakeQueue {
  public:
    /// `ring` translates the ring's own addresses, `data` those in descriptors. `base`: as in
    /// SET_VRING_BASE.
    FakeQueue(uint16_t size, uint64_t desc, uint64_t avail, uint64_t used, Translate ring,
              Translate data, uint32_t base, RingFormat format)
        : format_(format),
          size_(size),
          desc_(desc),
          avail_(avail),
          used_(used),
          ring_(std::move(ring)),
          data_(std::move(data)),
          next_(format.packed ? base & 0x7fff : base & 0xffff),
          next_wrap_((base & 0x8000) != 0),
          used_index_(next_),
          used_wrap_(next_wrap_) {}

    RingFormat format() const { return format_; }
    /// Where it would take the next chain, as in SET_VRING_BASE.
    uint32_t next() const {
        return format_.packed ? uint32_t{next_} | (next_wrap_ ? 0x8000u : 0u) : next_;
    }

    std::optional<FakeChain> take() {
        FakeChain chain;
        const bool there = format_.packed ? take_packed(chain) : take_split(chain);
        if (!there) return std::nullopt;
        if (chain.descriptors != 0) lengths_[chain.head] = chain.descriptors;
        return chain;
    }
    void put(uint32_t head, uint32_t bytes) {
        put_element(head, bytes);
        publish();
    }
    /// A used element that is not visible yet.
    void put_element(uint32_t head, uint32_t bytes) { put_element(head, bytes, 1, length(head)); }
    /// IN_ORDER: one element for all of `chains`, which wrote all they could but for the last.
    void put_batch(std::span<const FakeChain> chains, uint32_t bytes_of_last) {
        uint16_t descriptors = 0;
        for (const auto& c : chains) descriptors = uint16_t(descriptors + length(c.head));
        put_element(chains.back().head, bytes_of_last, uint16_t(chains.size()), descriptors);
    }
    void publish() {
        if (format_.packed) {
            if (held_) atomic16(held_->first).store(held_->second, std::memory_order_release);
            held_.reset();
        } else {
            atomic16(used_ + 2).store(used_index_, std::memory_order_release);
        }
        std::atomic_thread_fence(std::memory_order_seq_cst);
    }
    void jump_used_index(uint16_t by) { used_index_ = uint16_t(used_index_ + by), publish(); }

    // ---- signals

    /// Say when to be signalled: never, always, or (EVENT_IDX) for the entry `after` entries behind
    /// the next one, which of a packed ring are descriptors.
    void want_kicks(bool wanted, std::optional<uint16_t> after = {}) {
        if (format_.packed) {
            uint16_t at = next_;
            bool wrap = next_wrap_;
            for (uint16_t i = 0; after && i < *after; ++i) step(at, wrap);
            const uint16_t flags = !wanted ? wire::RING_EVENT_FLAGS_DISABLE
                                   : after ? wire::RING_EVENT_FLAGS_DESC
                                           : wire::RING_EVENT_FLAGS_ENABLE;
            store(ring_, used_, le16{uint16_t(at | (wrap ? 0x8000 : 0))});
            store(ring_, used_ + 2, le16{flags});
        } else if (after) {
            store(ring_, used_ + wire::used_ring_bytes(size_), le16{uint16_t(next_ + *after)});
        } else {
            atomic16(used_).store(wanted ? 0 : wire::VIRTQ_USED_F_NO_NOTIFY,
                                  std::memory_order_relaxed);
        }
        std::atomic_thread_fence(std::memory_order_seq_cst);
    }
    void set_event_suppression(uint16_t position, uint16_t flags) {
        store(ring_, used_, le16{position});
        store(ring_, used_ + 2, le16{flags});
    }
    uint16_t avail_flags() { return atomic16(avail_).load(std::memory_order_relaxed); }

    /// Whether the driver wants to be signalled for what was published since the last time. Walks
    /// over all positions that were passed.
    bool call_wanted() {
        const auto passed = std::exchange(passed_, {});
        if (passed.empty()) return false;
        if (format_.packed) {
            const uint16_t event = load<le16>(ring_, avail_);
            const uint16_t flags = load<le16>(ring_, avail_ + 2);
            if (flags != wire::RING_EVENT_FLAGS_DESC)
                return flags == wire::RING_EVENT_FLAGS_ENABLE;
            return std::find(passed.begin(), passed.end(), event) != passed.end();
        }
        if (!format_.event_idx) return (avail_flags() & wire::VIRTQ_AVAIL_F_NO_INTERRUPT) == 0;
        const uint16_t event = load<le16>(ring_, avail_ + wire::avail_ring_bytes(size_));
        return std::find(passed.begin(), passed.end(), event) != passed.end();
    }

    // ---- data

    std::vector<std::byte> read(const FakeChain& chain) const {
        std::vector<std::byte> bytes;
        for (const auto& s : chain.readable)
            for (uint32_t i = 0; i < s.bytes; ++i) bytes.push_back(*data_(s.at.value + i));
        return bytes;
    }
    /// The first address to be read that leads nowhere.
    std::optional<uint64_t> unreachable(const FakeChain& chain) const {
        for (const auto& s : chain.readable)
            for (uint32_t i = 0; i < s.bytes; ++i)
                if (data_(s.at.value + i) == nullptr) return s.at.value + i;
        return std::nullopt;
    }
    /// How much went into the chain.
    uint32_t write(const FakeChain& chain, std::span<const std::byte> bytes) const {
        uint32_t done = 0;
        for (const auto& s : chain.writable)
            for (uint32_t i = 0; i < s.bytes && done < bytes.size(); ++i)
                *data_(s.at.value + i) = bytes[done++];
        return done;
    }

  private:
    static constexpr uint16_t kAvail = wire::VIRTQ_DESC_F_AVAIL;
    static constexpr uint16_t kUsed = wire::VIRTQ_DESC_F_USED;

    template <class T>
    static T load(const Translate& space, uint64_t at) {
        std::byte bytes[sizeof(T)];
        for (size_t i = 0; i < sizeof(T); ++i) bytes[i] = *space(at + i);
        T value;
        std::memcpy(&value, bytes, sizeof value);
        return value;
    }
    template <class T>
    static void store(const Translate& space, uint64_t at, const T& value) {
        std::byte bytes[sizeof(T)];
        std::memcpy(bytes, &value, sizeof value);
        for (size_t i = 0; i < sizeof(T); ++i) *space(at + i) = bytes[i];
    }
    std::atomic_ref<uint16_t> atomic16(uint64_t at) const {
        return std::atomic_ref(*reinterpret_cast<uint16_t*>(ring_(at)));
    }
    void step(uint16_t& index, bool& wrap) const {
        if (++index == size_) index = 0, wrap = !wrap;
    }
    uint16_t length(uint32_t head) const {
        const auto found = lengths_.find(head);
        return found == lengths_.end() ? 1 : found->second;
    }

    bool take_split(FakeChain& chain) {
        if (atomic16(avail_ + 2).load(std::memory_order_acquire) == next_) return false;
        chain.head = load<le16>(ring_, avail_ + 4 + 2 * (next_ % size_));
        ++next_;
        walk(chain, ring_, desc_, chain.head);
        return true;
    }
    void walk(FakeChain& chain, const Translate& space, uint64_t table, uint16_t index) const {
        for (unsigned steps = 0; steps < 65536; ++steps) {
            const auto d = load<wire::virtq_desc>(space, table + 16 * index);
            if (&space == &ring_) ++chain.descriptors;
            if ((d.flags & wire::VIRTQ_DESC_F_INDIRECT) != 0) {
                chain.indirect = true;
                return walk(chain, data_, d.addr, 0);
            }
            add_segment(chain, d.flags, d.addr, d.len);
            if ((d.flags & wire::VIRTQ_DESC_F_NEXT) == 0) return;
            index = d.next;
        }
    }
    bool take_packed(FakeChain& chain) {
        const uint16_t first =
            atomic16(desc_ + 16 * next_ + 14).load(std::memory_order_acquire);
        if (((first & kAvail) != 0) != next_wrap_ || ((first & kUsed) != 0) == next_wrap_)
            return false;
        for (bool more = true; more; step(next_, next_wrap_)) {
            const auto d = load<wire::pvirtq_desc>(ring_, desc_ + 16 * next_);
            const uint16_t expected = next_wrap_ ? kAvail : kUsed;
            EXPECT_EQ(d.flags & (kAvail | kUsed), expected) << "in the middle of a chain";
            ++chain.descriptors;
            more = (d.flags & wire::VIRTQ_DESC_F_NEXT) != 0;
            if (!more) chain.head = d.id;
            if ((d.flags & wire::VIRTQ_DESC_F_INDIRECT) == 0) {
                add_segment(chain, d.flags, d.addr, d.len);
                continue;
            }
            chain.indirect = true;
            for (uint32_t i = 0; i < d.len / 16; ++i) {
                const auto entry = load<wire::pvirtq_desc>(data_, d.addr + 16 * i);
                EXPECT_EQ(entry.flags & ~wire::VIRTQ_DESC_F_WRITE, 0);
                add_segment(chain, entry.flags, entry.addr, entry.len);
            }
        }
        return true;
    }
    static void add_segment(FakeChain& chain, uint16_t flags, uint64_t at, uint32_t bytes) {
        const bool write = (flags & wire::VIRTQ_DESC_F_WRITE) != 0;
        EXPECT_TRUE(write || chain.writable.empty()) << "readable behind writable";
        (write ? chain.writable : chain.readable).push_back({BusAddress{at}, bytes});
    }

    void put_element(uint32_t head, uint32_t bytes, uint16_t chains, uint16_t descriptors) {
        if (!format_.packed) {
            const uint64_t at = used_ + 4 + 8 * (used_index_ % size_);
            store(ring_, at, le32{head});
            store(ring_, at + 4, le32{bytes});
            for (; chains > 0; --chains) passed_.push_back(used_index_++);
            return;
        }
        const uint64_t at = desc_ + 16 * used_index_;
        store(ring_, at + 8, le32{bytes != 0 ? bytes : 0xdead'beef});
        store(ring_, at + 12, le16{uint16_t(head)});
        const auto flags = uint16_t((bytes != 0 ? wire::VIRTQ_DESC_F_WRITE : 0) |
                                    (used_wrap_ ? kAvail | kUsed : 0));
        if (held_)
            atomic16(at + 14).store(flags, std::memory_order_relaxed);
        else
            held_ = {at + 14, flags};
        for (; descriptors > 0; --descriptors) {
            passed_.push_back(uint16_t(used_index_ | (used_wrap_ ? 0x8000 : 0)));
            step(used_index_, used_wrap_);
        }
    }

    RingFormat format_;
    uint16_t size_;
    uint64_t desc_, avail_, used_;
    Translate ring_, data_;
    uint16_t next_;
    bool next_wrap_;
    uint16_t used_index_;
    bool used_wrap_;
    std::map<uint32_t, uint16_t> lengths_;
    std::optional<std::pair<uint64_t, uint16_t>> held_;  // where flags go at publish()
    std::vector<uint16_t> passed_;
};

}  // namespace viommu::guest::test
