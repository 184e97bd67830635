// SPDX-License-Identifier: BSD-3-Clause
/// The device's side of a split virtqueue, as slow and as plain as it can be: every byte is looked
/// up on its own. The oracle for DriverQueue, and the engine of the fake devices.
#pragma once

#include <atomic>
#include <functional>

#include "viommu_guest.hh"

namespace viommu::guest::test {

/// Our pointer to one byte of the device's address space; null: not there.
using Translate = std::function<std::byte*(uint64_t address)>;

struct FakeChain {
    uint16_t head = 0;
    std::vector<Segment> readable, writable;
    bool indirect = false;
};

class FakeQueue {
  public:
    /// `ring` translates the ring's own addresses, `data` those in descriptors.
    FakeQueue(uint16_t size, uint64_t desc, uint64_t avail, uint64_t used, Translate ring,
              Translate data, uint16_t base = 0)
        : size_(size),
          desc_(desc),
          avail_(avail),
          used_(used),
          ring_(std::move(ring)),
          data_(std::move(data)),
          next_(base),
          used_index_(base) {}

    uint16_t next() const { return next_; }
    void set_used_flags(uint16_t flags) { atomic16(used_).store(flags, std::memory_order_relaxed); }
    uint16_t avail_flags() { return atomic16(avail_).load(std::memory_order_relaxed); }

    std::optional<FakeChain> take() {
        if (atomic16(avail_ + 2).load(std::memory_order_acquire) == next_) return std::nullopt;
        FakeChain chain;
        chain.head = load<le16>(ring_, avail_ + 4 + 2 * (next_ % size_));
        ++next_;
        walk(chain, ring_, desc_, chain.head);
        return chain;
    }
    void put(uint16_t head, uint32_t bytes) {
        put_element(head, bytes);
        publish();
    }
    /// Used elements that are not visible yet.
    void put_element(uint32_t head, uint32_t bytes) {
        const uint64_t at = used_ + 4 + 8 * (used_index_ % size_);
        store(ring_, at, le32{head});
        store(ring_, at + 4, le32{bytes});
        ++used_index_;
    }
    void publish() { atomic16(used_ + 2).store(used_index_, std::memory_order_release); }
    void jump_used_index(uint16_t by) { used_index_ = uint16_t(used_index_ + by), publish(); }

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
    void walk(FakeChain& chain, const Translate& space, uint64_t table, uint16_t index) const {
        for (unsigned steps = 0; steps < 65536; ++steps) {
            const auto d = load<wire::virtq_desc>(space, table + 16 * index);
            if ((d.flags & wire::VIRTQ_DESC_F_INDIRECT) != 0) {
                chain.indirect = true;
                return walk(chain, data_, d.addr, 0);
            }
            const bool write = (d.flags & wire::VIRTQ_DESC_F_WRITE) != 0;
            (write ? chain.writable : chain.readable).push_back({BusAddress{d.addr}, d.len});
            if ((d.flags & wire::VIRTQ_DESC_F_NEXT) == 0) return;
            index = d.next;
        }
    }

    uint16_t size_;
    uint64_t desc_, avail_, used_;
    Translate ring_, data_;
    uint16_t next_, used_index_;
};

}  // namespace viommu::guest::test
