// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "driver.hh"

namespace viommu::virtq::test {

/// The driver's side of a split ring, written from the spec as directly as possible and with no
/// code of the device's side. Index 0 is where both rings begin unless told otherwise.
class ReferenceDriver final : public Driver {
  public:
    ReferenceDriver(PageSpace& space, Vring vring, uint16_t start = 0, uint64_t features = 0)
        : space_(space),
          v_(vring),
          events_(negotiated(features, wire::VIRTIO_F_EVENT_IDX)),
          avail_(start),
          used_(start),
          kicked_(start),
          device_(start) {
        for (uint32_t i = vring.size; i-- > 0;) free_.push_back(uint16_t(i));
        space_.put(v_.avail + 2, start);
        space_.put(v_.used + 2, start);
    }

    void desc(uint32_t index, const Desc& d) { space_.put(v_.desc + 16 * index, d); }
    /// Make `head` available; the device does not see it before publish().
    void offer(uint16_t head) {
        space_.put(v_.avail + 4 + 2 * (avail_ % v_.size), head);
        ++avail_;
    }
    void publish() override { store(v_.avail + 2, avail_); }
    /// Pretend that the available index is something else.
    void publish_index(uint16_t index) { store(v_.avail + 2, index); }

    std::optional<uint16_t> chain(const std::vector<Desc>& buffers) override {
        if (buffers.size() > free_.size()) return std::nullopt;
        std::vector<uint16_t> ids(free_.end() - long(buffers.size()), free_.end());
        free_.resize(free_.size() - buffers.size());
        for (size_t i = 0; i < ids.size(); ++i) {
            Desc d = buffers[i];
            if (i + 1 < ids.size()) d.flags |= kNext, d.next = ids[i + 1];
            desc(ids[i], d);
        }
        offer(ids.front());
        chains_[ids.front()] = ids;
        return ids.front();
    }

    std::optional<uint16_t> indirect(uint64_t table, const std::vector<Desc>& buffers) override {
        for (size_t i = 0; i < buffers.size(); ++i) {
            Desc d = buffers[i];
            if (i + 1 < buffers.size()) d.flags |= kNext, d.next = uint16_t(i + 1);
            space_.put(table + 16 * i, d);
        }
        return chain({{table, uint32_t(16 * buffers.size()), kIndirect, 0}});
    }
    bool needs_kick() override {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        bool kick = false;
        const auto load = [&](uint64_t addr) {
            return __atomic_load_n(reinterpret_cast<uint16_t*>(space_.host_at(addr)),
                                   __ATOMIC_RELAXED);
        };
        for (; kicked_ != avail_; ++kicked_)
            kick |= events_ ? kicked_ == load(v_.used + 4 + 8 * v_.size) : (load(v_.used) & 1) == 0;
        return kick;
    }
    std::optional<Used> pop() override {
        const auto idx = __atomic_load_n(reinterpret_cast<uint16_t*>(space_.host_at(v_.used + 2)),
                                         __ATOMIC_ACQUIRE);
        if (idx == used_) return std::nullopt;
        const uint64_t at = v_.used + 4 + 8 * (used_ % v_.size);
        const Used u{space_.get<uint32_t>(at), space_.get<uint32_t>(at + 4)};
        ++used_;
        const auto it = chains_.find(uint16_t(u.id));
        if (u.id > 0xffff || it == chains_.end())
            throw std::runtime_error("the device returned a chain that it did not have");
        free_.insert(free_.end(), it->second.begin(), it->second.end());
        chains_.erase(it);
        return u;
    }

    void want_interrupts(bool on) override {
        // With EVENT_IDX there is no other way than an event that is far away.
        if (events_)
            want_interrupt_after(on ? 0 : 0x8000);
        else
            store(v_.avail, on ? 0 : wire::VIRTQ_AVAIL_F_NO_INTERRUPT);
    }
    void want_interrupt_after(uint32_t skip) override {
        if (!events_) throw std::runtime_error("without EVENT_IDX there are no events");
        store(v_.avail + 4 + 2 * v_.size, uint16_t(used_ + skip));
    }
    bool expects_signal(const std::vector<uint16_t>& returned) override {
        const auto event = events_ ? space_.get<uint16_t>(v_.avail + 4 + 2 * v_.size) : 0;
        const bool wanted = (space_.get<uint16_t>(v_.avail) & 1) == 0;
        bool signal = false;
        for (size_t i = 0; i < returned.size(); ++i, ++device_)
            signal |= events_ ? device_ == event : wanted;
        return signal;
    }
    uint16_t avail_event() { return space_.get<uint16_t>(v_.used + 4 + 8 * v_.size); }
    uint16_t used_flags() { return space_.get<uint16_t>(v_.used); }
    uint16_t used_index() { return space_.get<uint16_t>(v_.used + 2); }
    uint16_t avail_index() const { return avail_; }
    size_t free_descriptors() const override { return free_.size(); }

  private:
    void store(uint64_t addr, uint16_t v) {
        __atomic_store_n(reinterpret_cast<uint16_t*>(space_.host_at(addr)), v, __ATOMIC_RELEASE);
    }

    PageSpace& space_;
    Vring v_;
    bool events_;
    uint16_t avail_, used_;
    uint16_t kicked_;  // what needs_kick() has looked at
    uint16_t device_;  // what expects_signal() has looked at
    std::vector<uint16_t> free_;
    std::map<uint16_t, std::vector<uint16_t>> chains_;
};

/// A bound queue and its driver, the ring wherever asked for.
struct Rig {
    struct Shape {
        uint32_t size = 8;
        uint16_t start = 0;
        bool scattered = false;
        uint32_t desc_skew = 0, avail_skew = 0, used_skew = 0;  ///< bytes past a page boundary
        uint64_t features = 0;
    };
    static constexpr uint64_t kDescAt = 0x10000000, kAvailAt = 0x20000000, kUsedAt = 0x30000000;
    static constexpr uint64_t kDataAt = 0x40000000, kTableAt = 0x50000000;

    static Vring vring(const Shape& s) {
        Vring v;
        v.size = s.size;
        v.desc = kDescAt + s.desc_skew;
        v.avail = kAvailAt + s.avail_skew;
        v.used = kUsedAt + s.used_skew;
        return v;
    }
    static PageSpace& with_ring(PageSpace& space, const Shape& s) {
        const Vring v = vring(s);
        space.add(v.desc, wire::desc_table_bytes(s.size), s.scattered);
        space.add(v.avail, wire::avail_ring_bytes(s.size, true), s.scattered);
        space.add(v.used, wire::used_ring_bytes(s.size, true), s.scattered);
        return space;
    }

    explicit Rig(const Shape& s, size_t data_pages = 16, size_t table_pages = 16)
        : space(data_pages + table_pages + 8 +
                (wire::desc_table_bytes(s.size) + wire::avail_ring_bytes(s.size) +
                 wire::used_ring_bytes(s.size)) /
                    kPage),
          driver(with_ring(space, s), vring(s), s.start, s.features) {
        space.add(kDataAt, data_pages * kPage, s.scattered);
        space.add(kTableAt, table_pages * kPage, s.scattered);
        is_bound = queue.bind(space, vring(s), s.features);
        if (is_bound) queue.start_at(s.start);
    }
    Rig() : Rig(Shape{}) {}

    PageSpace space;
    ReferenceDriver driver;
    SplitQueue<PageSpace> queue;
    Chain chain;
    bool is_bound = false;
};

}  // namespace viommu::virtq::test
