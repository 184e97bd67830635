// SPDX-License-Identifier: BSD-3-Clause
/// Fuzz target: the device side of a split ring in hostile memory, against a reading of virtio 1.3,
/// 2.7 that looks at one descriptor after the other.
///
/// Required: what is taken is what is there (when it does not change meanwhile) and keeps a chain's
/// promises (when it does); nothing but the used ring and a chain's writable buffers is written,
/// byte by byte; indices, signals and notifications follow 2.7.7 and 2.7.10; the work for one chain
/// is bounded; everything taken can be put back or returned.
#include "ring_fuzz.hh"

namespace viommu::fuzz {
namespace {

struct Desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

uint64_t features_of(Input& in) {
    const uint8_t b = in.take();
    uint64_t f = uint64_t{1} << wire::VIRTIO_F_VERSION_1 |
                 uint64_t{1} << wire::VIRTIO_F_INDIRECT_DESC;
    if (b & 1) f |= uint64_t{1} << wire::VIRTIO_F_EVENT_IDX;
    if (b & 2) f |= uint64_t{1} << wire::VIRTIO_F_IN_ORDER;
    return f;
}

class Session {
  public:
    explicit Session(Input in)
        : in_(in),
          guest_(in_, 1u << in_.below(6), features_of(in_)),
          space_(guest_.space),
          size_(guest_.size) {
        const bool events = guest_.event_idx();
        space_.add(guest_.vring.desc, 16 * size_, guest_.scattered);
        space_.add(guest_.vring.avail, 4 + 2 * size_ + (events ? 2 : 0), guest_.scattered);
        space_.add(guest_.vring.used, 4 + 8 * size_ + (events ? 2 : 0), guest_.scattered);
        require(queue_.bind(space_, guest_.vring, guest_.features), "a good ring is refused");
        chain_.reserve(size_);
        const uint16_t start = in_.one_of<uint16_t>({0, 0, 65533, 0x7fff});
        space_.put(guest_.vring.avail + 2, start);
        space_.put(guest_.vring.used + 2, start);
        avail_ = start;
        restart(start);
        space_.verify("bind()");
    }

    void run() {
        for (unsigned step = 0; !in_.empty() && step < 400; ++step) {
            one_step();
            space_.changes.clear();
        }
        while (!taken_.empty()) push();
        flush();
    }

  private:
    void one_step() {
        switch (in_.below(16)) {
            case 0: return space_.put(desc_at(in_.take()), descriptor());
            case 1:
            case 2: return offer_chain();
            case 3: return offer(in_.below(size_ + 1));
            case 4: return publish();
            case 5: return space_.poke(guest_.sensitive(in_), in_.take<uint16_t>());
            case 6: return put_table();
            case 7: return want_signals();
            case 8: return guest_.remap(in_);
            case 9:
            case 10:
            case 11: return pop();
            case 12: return in_.one_in(4) ? unpop() : push();
            case 13: return flush();
            case 14: return notifications();
            case 15: return stop_and_start();
        }
    }

    // --- the guest -------------------------------------------------------------------------------

    uint64_t desc_at(uint32_t i) const { return guest_.vring.desc + 16 * (i % size_); }
    Desc descriptor() {
        Desc d{guest_.buffer(in_), guest_.length(in_), guest_.flags(in_), 0};
        d.next = in_.below(size_ + 1) == size_ ? 0xffff : in_.below(size_);
        return d;
    }
    void offer(uint16_t head) {
        space_.put(guest_.vring.avail + 4 + 2 * (avail_ % size_), head);
        ++avail_;
    }
    void publish() {
        if (in_.one_in(32)) avail_ = in_.take<uint16_t>();
        space_.put(guest_.vring.avail + 2, avail_);
    }
    /// A chain that is right but for its buffers.
    void offer_chain() {
        const uint32_t first = in_.below(size_);
        const uint32_t count = 1 + in_.below(std::min(size_, 8u));
        const uint32_t readable = in_.below(count + 1);
        for (uint32_t i = 0; i < count; ++i) {
            const bool indirect = i + 1 == count && in_.one_in(3);
            Desc d{guest_.buffer(in_), guest_.length(in_), 0, uint16_t((first + i + 1) % size_)};
            d.flags = uint16_t((i + 1 < count ? kNext : 0) | (i >= readable ? kWrite : 0));
            if (indirect) d = {kTableAt + in_.take() * 16u, 16 * (1u + in_.below(8)), kIndirect, 0};
            space_.put(desc_at(first + i), d);
        }
        offer(uint16_t(first));
        publish();
    }
    void put_table() {
        const uint64_t at = kTableAt + in_.take() * 16u + (in_.one_in(8) ? in_.take() : 0);
        const uint32_t count = 1 + in_.below(6);
        for (uint32_t i = 0; i < count; ++i) {
            Desc d{guest_.buffer(in_), guest_.length(in_), guest_.flags(in_), uint16_t(i + 1)};
            if (i + 1 == count) d.next = in_.take();
            space_.put(at + 16 * i, d);
        }
    }
    void want_signals() {
        if (guest_.event_idx())
            space_.put(guest_.vring.avail + 4 + 2 * size_, uint16_t(used_ + in_.take() - 128));
        else
            space_.put(guest_.vring.avail, in_.take<uint16_t>());
    }

    // --- what should be taken --------------------------------------------------------------------

    void look() {
        const uint16_t idx = *space_.get<uint16_t>(guest_.vring.avail + 2);
        if (uint16_t(idx - next_) > size_)
            broken_ = true;
        else
            seen_ = idx;
    }
    /// 2.7.5, 2.7.5.3.
    Pop expected(uint16_t head, ChainModel& chain) {
        uint32_t index = head;
        uint32_t count = 0;
        for (uint32_t left = size_; left > 0; --left) {
            const Desc d = *space_.get<Desc>(desc_at(index));
            if ((d.flags & kIndirect) != 0)
                return (d.flags & kNext) != 0 ? Pop::kMalformed : expected_table(d, count, chain);
            ++count;
            if (!chain.append(d.addr, d.len, (d.flags & kWrite) != 0)) return Pop::kMalformed;
            if ((d.flags & kNext) == 0) return Pop::kChain;
            if (d.next >= size_) return Pop::kMalformed;
            index = d.next;
        }
        return Pop::kMalformed;
    }
    Pop expected_table(const Desc& table, uint32_t count, ChainModel& chain) {
        if (table.len == 0 || table.len % 16 != 0 || table.addr + (table.len - 1) < table.addr)
            return Pop::kMalformed;
        for (uint32_t index = 0; count < std::max(size_, virtq::Chain::kMinSegments); ++count) {
            const auto d = space_.get<Desc>(table.addr + uint64_t{index} * 16, Access::kRead);
            if (!d) return Pop::kFault;
            if ((d->flags & kIndirect) != 0) return Pop::kMalformed;
            if (!chain.append(d->addr, d->len, (d->flags & kWrite) != 0)) return Pop::kMalformed;
            if ((d->flags & kNext) == 0) return Pop::kChain;
            if (d->next >= table.len / 16) return Pop::kMalformed;
            index = d->next;
        }
        return Pop::kMalformed;
    }

    void pop() {
        guest_.be_quick(in_);
        if (!broken_ && next_ == seen_) look();
        Pop want = broken_ ? Pop::kBroken : next_ == seen_ ? Pop::kEmpty : Pop::kChain;
        ChainModel model;
        uint16_t head = 0;
        if (want == Pop::kChain) {
            head = *space_.get<uint16_t>(guest_.vring.avail + 4 + 2 * (next_ % size_));
            want = head >= size_ ? Pop::kBroken : expected(head, model);
            broken_ = head >= size_;
        }
        const Pop got = queue_.pop(chain_);
        const bool is_taken = got != Pop::kEmpty && got != Pop::kBroken;
        require(is_taken == (want != Pop::kEmpty && want != Pop::kBroken), "pop() says {}, not {}",
                int(got), int(want));
        require(space_.changed > 0 || got == want, "pop() says {}, not {}", int(got), int(want));
        require(queue_.broken() == broken_, "broken: {}", queue_.broken());
        require(space_.resolves <= std::max(size_, virtq::Chain::kMinSegments) * 2,
                "{} look-ups for one chain", space_.resolves);
        if (guest_.event_idx()) space_.accept<uint16_t>(avail_event_at());
        if (is_taken) {
            ++next_;
            require(chain_.taken().id == head, "taken {}, not {}", chain_.taken().id, head);
            taken_.push_back(chain_.taken());
        }
        if (got == Pop::kChain) {
            check_chain(chain_, size_);
            if (space_.changed == 0) {
                check_same(chain_.readable(), model.readable, "readable");
                check_same(chain_.writable(), model.writable, "writable");
            }
        }
        space_.verify("pop()");
        require(queue_.next_base() == next_, "next_base() {}, not {}", queue_.next_base(), next_);
        if (got == Pop::kChain && in_.one_in(2)) use_chain(guest_, queue_, chain_, in_);
    }

    void unpop() {
        if (taken_.empty()) return;
        queue_.unpop(taken_.back());
        taken_.pop_back();
        --next_;
        require(queue_.next_base() == next_, "next_base() {} after unpop()", queue_.next_base());
        space_.verify("unpop()");
    }

    // --- what should be returned -----------------------------------------------------------------

    uint64_t avail_event_at() const { return guest_.vring.used + 4 + 8 * size_; }

    void push() {
        if (taken_.empty()) return;
        const uint32_t written = in_.take<uint16_t>();
        queue_.push(taken_.front(), written);
        const uint64_t at = guest_.vring.used + 4 + 8 * (used_ % size_);
        space_.expect(at, uint32_t{taken_.front().id});
        space_.expect(at + 4, written);
        last_ = uint64_t{written} << 32 | taken_.front().id;
        ++used_;
        taken_.pop_front();
        space_.verify("push()");
    }

    void flush() {
        const bool any = published_ != used_;
        require(queue_.flush() == any, "flush() said {}", !any);
        if (any) space_.expect(guest_.vring.used + 2, used_);
        space_.verify("flush()");
        for (; published_ != used_; ++published_) unsignalled_.push_back(published_);
        if (!any || in_.one_in(4)) return;  // asked later about both
        bool wanted;
        if (guest_.event_idx()) {
            const auto event = *space_.get<uint16_t>(guest_.vring.avail + 4 + 2 * size_);
            wanted = std::ranges::find(unsignalled_, event) != unsignalled_.end();
        } else {
            wanted = (*space_.get<uint16_t>(guest_.vring.avail) & 1) == 0;
        }
        if (unsignalled_.size() < 0x10000)  // the same index twice: any answer
            require(queue_.needs_signal() == wanted, "needs_signal() is not {}", wanted);
        unsignalled_.clear();
        space_.verify("needs_signal()");
    }

    /// 2.7.10: would the driver kick when it goes from `from` to `to`?
    bool kicks(uint16_t from, uint16_t to) {
        if (!guest_.event_idx()) return (*space_.get<uint16_t>(guest_.vring.used) & 1) == 0;
        const auto event = *space_.get<uint16_t>(avail_event_at());
        return uint16_t(to - event - 1) < uint16_t(to - from);
    }
    void notifications() {
        const unsigned which = in_.below(3);
        bool idle = false;
        if (which == 2) {
            if (!broken_ && next_ == seen_) look();
            idle = broken_ || next_ == seen_;
            require(queue_.arm() == idle, "arm() is not {}", idle);
        } else {
            queue_.enable_notifications(which == 1);
        }
        // The words that the device may have changed, and what they must say now.
        space_.accept<uint16_t>(guest_.vring.used);
        if (guest_.event_idx()) space_.accept<uint16_t>(avail_event_at());
        space_.verify("notifications");
        if (broken_) return;
        if (which == 0)
            require(!kicks(next_, uint16_t(next_ + size_)), "the guest kicks while we poll");
        if (which == 1 || idle)
            require(kicks(next_, uint16_t(next_ + 1)), "the guest does not kick while we sleep");
    }

    void restart(uint16_t at) {
        queue_.start_at(at);
        seen_ = next_ = used_ = published_ = at;
        const uint64_t element = guest_.vring.used + 4 + 8 * (uint16_t(at - 1) % size_);
        last_ = *space_.get<uint64_t>(element);
        broken_ = false;
        unsignalled_.clear();
    }
    void stop_and_start() {
        const auto mark = queue_.mark();
        switch (in_.below(8)) {
            case 0:  // where the used ring ends
                queue_.start_at_used_or(0xdead);
                taken_.clear();
                restart(*space_.get<uint16_t>(guest_.vring.used + 2));
                require(queue_.next_base() == next_, "started at {}", queue_.next_base());
                break;
            case 1:
                taken_.clear();
                restart(in_.take<uint16_t>());
                break;
            case 2: {  // bound again where it was; with other addresses it must be refused
                auto other = guest_.vring;
                other.desc += in_.one_of({0, 8, 0x1000000});
                const bool same = other.desc == guest_.vring.desc;
                queue_.unbind();
                require(queue_.bind(space_, other, guest_.features) == same, "bind()");
                if (!same) require(queue_.bind(space_, guest_.vring, guest_.features), "bind()");
                require(queue_.next_base() == next_, "bind() moves to {}", queue_.next_base());
                break;
            }
            default: {  // a mark knows its ring
                const auto idx = *space_.get<uint16_t>(guest_.vring.used + 2);
                const uint64_t at = guest_.vring.used + 4 + 8 * (uint16_t(used_ - 1) % size_);
                const bool same = next_ == used_ && idx == used_ &&
                                  *space_.get<uint64_t>(at) == last_;
                require(queue_.continues(mark, mark.base) == same, "continues() is not {}", same);
            }
        }
        space_.verify("start");
    }

    Input in_;
    Guest guest_;
    HostileSpace& space_;
    const uint32_t size_;
    virtq::Queue<HostileSpace> queue_;
    virtq::Chain chain_;
    uint16_t avail_ = 0;                                  // the guest's, not published perhaps
    uint16_t next_ = 0, seen_ = 0, used_ = 0, published_ = 0;  // the device's
    uint64_t last_ = 0;
    bool broken_ = false;
    std::deque<virtq::Taken> taken_;
    std::vector<uint16_t> unsignalled_;
};

}  // namespace
}  // namespace viommu::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    viommu::fuzz::Session(viommu::fuzz::Input(data, size)).run();
    return 0;
}
