// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "driver.hh"

namespace viommu::virtq::test {

/// The driver's side of a packed ring, written from 2.8 as directly as possible and with no code of
/// the device's side. The second half of a descriptor is one word, so that TSan sees who hands over
/// what.
class PackedDriver final : public Driver {
  public:
    struct Place {
        uint32_t slot;
        bool wrap;
        friend bool operator==(const Place&, const Place&) = default;
        void step(uint32_t size) {
            if (++slot == size) slot = 0, wrap = !wrap;
        }
    };

    PackedDriver(PageSpace& space, Vring vring, uint64_t features)
        : space_(space),
          v_(vring),
          events_(negotiated(features, wire::VIRTIO_F_EVENT_IDX)),
          avail_{vring.base & 0x7fff, (vring.base & 0x8000) != 0},
          used_(avail_),
          device_(avail_),
          free_(vring.size) {
        // Buffer ids need not be small; ours are not.
        for (uint32_t i = vring.size; i-- > 0;) ids_.push_back(uint16_t(i * 2 + 1));
        // As a driver left the ring that has used it up to here: each place was used last lap.
        for (Place p{0, avail_.wrap}; p.slot < v_.size; ++p.slot) {
            const bool lap = p.slot < avail_.slot ? avail_.wrap : !avail_.wrap;
            put(p.slot, 0, 0, lap ? 0x8080 : 0);
        }
        want_interrupts(true);
    }

    /// Write a descriptor as it is; `flags` without the two bits.
    void desc(const Place& at, const Desc& d, uint16_t id) {
        space_.put(address(at.slot), d.addr);
        put(at.slot, d.len, id, flags_at(at, d.flags));
    }
    std::optional<uint16_t> chain(const std::vector<Desc>& buffers) override {
        if (buffers.size() > free_ || ids_.empty()) return std::nullopt;
        free_ -= uint32_t(buffers.size());
        const uint16_t id = ids_.back();
        ids_.pop_back();
        for (size_t i = 0; i < buffers.size(); ++i) {
            Desc d = buffers[i];
            const bool last = i + 1 == buffers.size();
            if (!last) d.flags |= kNext;
            space_.put(address(avail_.slot), d.addr);
            const Head h{avail_.slot, d.len, last ? id : uint16_t{0xdead},
                         flags_at(avail_, d.flags)};
            if (i == 0)
                heads_.push_back(h);
            else
                put(h.slot, h.len, h.id, h.flags);
            published_.push_back(avail_);
            avail_.step(v_.size);
        }
        counts_[id] = uint32_t(buffers.size());
        return id;
    }
    std::optional<uint16_t> indirect(uint64_t table, const std::vector<Desc>& buffers) override {
        for (size_t i = 0; i < buffers.size(); ++i) {
            space_.put(table + 16 * i, buffers[i].addr);
            space_.put(table + 16 * i + 8, buffers[i].len);
            space_.put(table + 16 * i + 12, uint16_t{0xbeef});
            // Only WRITE is valid there; the rest is to be ignored.
            space_.put(table + 16 * i + 14,
                       uint16_t((buffers[i].flags & kWrite) | (i % 2 != 0 ? 0x8085 : 0)));
        }
        return chain({{table, uint32_t(16 * buffers.size()), kIndirect, 0}});
    }
    void publish() override {
        for (const Head& h : heads_) put(h.slot, h.len, h.id, h.flags);
        heads_.clear();
    }
    bool needs_kick() override {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        const auto wish = __atomic_load_n(reinterpret_cast<uint32_t*>(space_.host_at(v_.used)),
                                          __ATOMIC_RELAXED);
        const Place event{wish & 0x7fff, (wish & 0x8000) != 0};
        bool kick = false;
        for (const Place& p : published_) kick |= wish >> 16 != 2 || p == event;
        published_.clear();
        return kick && wish >> 16 != 1;
    }
    std::optional<Used> pop() override {
        const uint64_t tail = __atomic_load_n(tail_of(used_.slot), __ATOMIC_ACQUIRE);
        const auto flags = uint16_t(tail >> 48);
        const bool a = (flags & 0x80) != 0, u = (flags & 0x8000) != 0;
        if (a != used_.wrap || u != used_.wrap || free_ == v_.size) return std::nullopt;
        const auto id = uint16_t(tail >> 32);
        const Used result{id, uint32_t(tail)};
        if (((flags & kWrite) != 0) != (result.len != 0))
            throw std::runtime_error("the device's WRITE flag does not say whether it wrote");
        const auto it = counts_.find(id);
        if (it == counts_.end())
            throw std::runtime_error("the device returned a chain that it did not have");
        for (uint32_t i = 0; i < it->second; ++i) used_.step(v_.size);
        free_ += it->second;
        ids_.insert(ids_.begin(), id);
        counts_.erase(it);
        return result;
    }
    size_t free_descriptors() const override { return free_; }

    void want_interrupts(bool on) override { wish(0, on ? 0 : 1); }
    void want_interrupt_after(uint32_t skip) override {
        if (!events_) throw std::runtime_error("without EVENT_IDX there are no events");
        Place at = used_;
        while (skip-- > 0) at.step(v_.size);
        event_ = at;
        wish(uint16_t(at.slot | uint32_t{at.wrap} << 15), 2);
    }
    bool expects_signal(const std::vector<uint16_t>& returned) override {
        bool signal = false;
        for (const uint16_t id : returned)
            for (uint32_t n = counts_.at(id); n > 0; --n) {
                signal |= mode_ == 0 || (mode_ == 2 && device_ == event_);
                device_.step(v_.size);
            }
        return signal;
    }

    Place avail() const { return avail_; }
    uint32_t device_area() { return space_.get<uint32_t>(v_.used); }
    uint64_t word(uint32_t slot) { return space_.get<uint64_t>(address(slot) + 8); }
    void wish(uint16_t place, uint16_t mode) {
        mode_ = mode;
        __atomic_store_n(reinterpret_cast<uint32_t*>(space_.host_at(v_.avail)),
                         place | uint32_t{mode} << 16, __ATOMIC_RELEASE);
    }

  private:
    uint64_t address(uint32_t slot) const { return v_.desc + uint64_t{16} * slot; }
    uint64_t* tail_of(uint32_t slot) {
        return reinterpret_cast<uint64_t*>(space_.host_at(address(slot) + 8));
    }
    void put(uint32_t slot, uint32_t len, uint16_t id, uint16_t flags) {
        __atomic_store_n(tail_of(slot), len | uint64_t{id} << 32 | uint64_t{flags} << 48,
                         __ATOMIC_RELEASE);
    }
    static uint16_t flags_at(const Place& at, uint16_t flags) {
        return uint16_t(flags | (at.wrap ? 0x80 : 0x8000));
    }

    struct Head {
        uint32_t slot, len;
        uint16_t id, flags;
    };

    PageSpace& space_;
    Vring v_;
    bool events_;
    Place avail_, used_, device_, event_{};
    uint16_t mode_ = 0;
    uint32_t free_;
    std::vector<uint16_t> ids_;
    std::vector<Head> heads_;
    std::vector<Place> published_;
    std::map<uint16_t, uint32_t> counts_;
};

}  // namespace viommu::virtq::test
