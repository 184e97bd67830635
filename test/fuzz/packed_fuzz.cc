// SPDX-License-Identifier: BSD-3-Clause
/// Fuzz target: the device side of a packed ring in hostile memory, against a reading of
/// virtio 1.3, 2.8 that looks at one descriptor after the other.
///
/// Required: as of split rings (split_fuzz.cc). Here the ring itself is what the device writes: of
/// a used chain the second half of one descriptor, the first of a batch only when it is published.
#include "ring_fuzz.hh"

namespace viommu::fuzz {
namespace {

constexpr uint16_t kAvail = 1u << 7, kUsed = 1u << 15;

struct Desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id;
    uint16_t flags;
};

/// A place in the ring and a wrap counter.
struct Place {
    uint32_t slot = 0;
    bool wrap = true;

    bool operator==(const Place&) const = default;
    Place after(uint32_t size) const {
        return slot + 1 == size ? Place{0, !wrap} : Place{slot + 1, wrap};
    }
    Place before(uint32_t size) const {
        return slot == 0 ? Place{size - 1, !wrap} : Place{slot - 1, wrap};
    }
    uint16_t half() const { return uint16_t(slot | unsigned(wrap) << 15); }
    bool has(uint16_t flags) const {
        return ((flags & kAvail) != 0) == wrap && ((flags & kUsed) != 0) != wrap;
    }
};

uint64_t features_of(Input& in) {
    const uint8_t b = in.take();
    uint64_t f = uint64_t{1} << wire::VIRTIO_F_VERSION_1 |
                 uint64_t{1} << wire::VIRTIO_F_INDIRECT_DESC |
                 uint64_t{1} << wire::VIRTIO_F_RING_PACKED;
    if (b & 1) f |= uint64_t{1} << wire::VIRTIO_F_EVENT_IDX;
    if (b & 2) f |= uint64_t{1} << wire::VIRTIO_F_IN_ORDER;
    return f;
}

class Session {
  public:
    explicit Session(Input in)
        : in_(in),
          guest_(in_, in_.one_of<uint32_t>({8, 1, 2, 3, 5, 7, 16, 33}), features_of(in_)),
          space_(guest_.space),
          size_(guest_.size) {
        space_.add(guest_.vring.desc, 16 * size_, guest_.scattered);
        space_.add(guest_.vring.avail, 4, guest_.scattered);
        space_.add(guest_.vring.used, 4, guest_.scattered);
        require(queue_.bind(space_, guest_.vring, guest_.features), "a good ring is refused");
        chain_.reserve(size_);
        restart(0x80008000);
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
            case 2:
            case 3: return offer_chain();
            case 4: return space_.poke(guest_.sensitive(in_), in_.take<uint16_t>());
            case 5:
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
        Desc d{guest_.buffer(in_), guest_.length(in_), in_.take<uint16_t>(), guest_.flags(in_)};
        d.flags = uint16_t(d.flags | in_.one_of<unsigned>({kAvail, kUsed, 0, kAvail | kUsed}));
        return d;
    }
    /// A chain that is right but for its buffers, where the driver would put it next.
    void offer_chain() {
        const uint32_t count = 1 + in_.below(std::min(size_, 8u));
        const uint32_t readable = in_.below(count + 1);
        const Place first = driver_;
        std::vector<Desc> list;
        for (uint32_t i = 0; i < count; ++i) {
            Desc d{guest_.buffer(in_), guest_.length(in_), in_.take(), 0};
            d.flags = uint16_t((i + 1 < count ? kNext : 0) | (i >= readable ? kWrite : 0));
            if (count == 1 && in_.one_in(2))
                d = {kTableAt + in_.take() * 16u, 16 * (1u + in_.below(8)), d.id, kIndirect};
            d.flags = uint16_t(d.flags | (driver_.wrap ? kAvail : kUsed));
            list.push_back(d);
            driver_ = driver_.after(size_);
        }
        Place at = first;
        for (const Desc& d : list) {
            space_.put(desc_at(at.slot), d);
            at = at.after(size_);
        }
    }
    void put_table() {
        const uint64_t at = kTableAt + in_.take() * 16u + (in_.one_in(8) ? in_.take() : 0);
        for (uint32_t i = 0, count = 1 + in_.below(6); i < count; ++i)
            space_.put(at + 16 * i,
                       Desc{guest_.buffer(in_), guest_.length(in_), in_.take(), guest_.flags(in_)});
    }
    void want_signals() {
        const uint16_t flags = in_.one_of<uint16_t>({0, 1, 2, 2, 3, 0xfffe});
        Place near = used_;
        for (unsigned n = in_.below(8); n > 0; --n) near = near.before(size_);
        space_.put(guest_.vring.avail, in_.one_in(8) ? in_.take<uint16_t>() : near.half());
        space_.put(guest_.vring.avail + 2, flags);
    }

    // --- what should be taken --------------------------------------------------------------------

    uint32_t room() const { return size_ - out_ - pushed_; }
    bool is_available(Place at) { return at.has(space_.get<Desc>(desc_at(at.slot))->flags); }

    Pop expected(ChainModel& chain, virtq::Taken& taken) {
        if (broken_) return Pop::kBroken;
        if (!is_available(next_)) return Pop::kEmpty;
        Pop pop = Pop::kChain;
        Place at = next_;
        for (uint32_t slots = 1; slots <= room(); ++slots) {
            const Desc d = *space_.get<Desc>(desc_at(at.slot));
            const bool is_last = (d.flags & kNext) == 0;
            if (pop == Pop::kChain) {
                if ((d.flags & kIndirect) != 0)
                    pop = slots == 1 && is_last ? expected_table(d, chain) : Pop::kMalformed;
                else if (!chain.append(d.addr, d.len, (d.flags & kWrite) != 0))
                    pop = Pop::kMalformed;
            }
            at = at.after(size_);
            if (!is_last) continue;
            taken = {.id = d.id, .slots = uint16_t(slots)};
            return pop;
        }
        return Pop::kBroken;
    }
    Pop expected_table(const Desc& table, ChainModel& chain) {
        const uint32_t entries = table.len / 16;
        if (table.len == 0 || table.len % 16 != 0 || table.addr + (table.len - 1) < table.addr ||
            entries > std::max(size_, virtq::Chain::kMinSegments))
            return Pop::kMalformed;
        for (uint32_t i = 0; i < entries; ++i) {
            const auto d = space_.get<Desc>(table.addr + uint64_t{i} * 16, Access::kRead);
            if (!d) return Pop::kFault;
            if (!chain.append(d->addr, d->len, (d->flags & kWrite) != 0)) return Pop::kMalformed;
        }
        return Pop::kChain;
    }

    void pop() {
        if (in_.one_in(8)) check_available();
        guest_.be_quick(in_);
        ChainModel model;
        virtq::Taken taken;
        const Pop want = expected(model, taken);
        broken_ = want == Pop::kBroken;
        const Pop got = queue_.pop(chain_);
        const bool is_taken = got != Pop::kEmpty && got != Pop::kBroken;
        require(is_taken == (want != Pop::kEmpty && want != Pop::kBroken), "pop() says {}, not {}",
                int(got), int(want));
        require(space_.changed > 0 || got == want, "pop() says {}, not {}", int(got), int(want));
        require(queue_.broken() == broken_, "broken: {}", queue_.broken());
        require(space_.resolves <= std::max(size_, virtq::Chain::kMinSegments) * 2,
                "{} look-ups for one chain", space_.resolves);
        if (is_taken) {
            require(chain_.taken().id == taken.id && chain_.taken().slots == taken.slots,
                    "taken {} of {} slots, not {} of {}", chain_.taken().id, chain_.taken().slots,
                    taken.id, taken.slots);
            for (unsigned n = 0; n < taken.slots; ++n) next_ = next_.after(size_);
            out_ += taken.slots;
            taken_.push_back(taken);
            can_unpop_ = true;
        }
        if (got == Pop::kChain) {
            check_chain(chain_, size_);
            if (space_.changed == 0) {
                check_same(chain_.readable(), model.readable, "readable");
                check_same(chain_.writable(), model.writable, "writable");
            }
        }
        space_.verify("pop()");
        check_base();
        if (got == Pop::kChain && in_.one_in(2)) use_chain(guest_, queue_, chain_, in_);
    }

    void check_available() {
        const unsigned most = in_.one_of<unsigned>({1, 2, ~0u});
        unsigned chains = 0;
        Place at = next_;
        for (uint32_t n = 0; n < room() && chains < most && !broken_ && is_available(at); ++n) {
            chains += (space_.get<Desc>(desc_at(at.slot))->flags & kNext) == 0;
            at = at.after(size_);
        }
        if (chains == 0 && at != next_) chains = 1;  // does not end; pop() will tell
        require(queue_.available(most) == chains, "available({}) is not {}", most, chains);
        space_.verify("available()");
    }

    void unpop() {
        if (!can_unpop_) return;
        const virtq::Taken taken = taken_.back();
        taken_.pop_back();
        queue_.unpop(taken);
        for (unsigned n = 0; n < taken.slots; ++n) next_ = next_.before(size_);
        out_ -= taken.slots;
        can_unpop_ = !taken_.empty() && !out_of_order_;
        space_.verify("unpop()");
        check_base();
    }

    void check_base() {
        const uint32_t base = next_.half() | uint32_t{used_.half()} << 16;
        require(queue_.next_base() == base, "next_base() {:#x}, not {:#x}", queue_.next_base(),
                base);
    }

    // --- what should be returned -----------------------------------------------------------------

    void push() {
        if (taken_.empty()) return;
        const uint32_t written = in_.one_in(4) ? 0 : in_.take<uint16_t>();
        const bool from_back = in_.one_in(4) && taken_.size() > 1;
        const virtq::Taken taken = from_back ? taken_.back() : taken_.front();
        from_back ? taken_.pop_back() : taken_.pop_front();
        if (from_back || taken_.empty()) can_unpop_ = false;
        if (from_back) out_of_order_ = true;
        if (taken_.empty()) out_of_order_ = false;
        queue_.push(taken, written);
        const auto flags =
            uint16_t((used_.wrap ? kAvail | kUsed : 0) | (written != 0 ? kWrite : 0));
        const Word word{desc_at(used_.slot) + 8,
                        uint64_t{written} | uint64_t{taken.id} << 32 | uint64_t{flags} << 48};
        if (pushed_ == 0)
            first_ = word;
        else
            space_.expect(word.at, word.value);
        for (unsigned n = 0; n < taken.slots; ++n) {
            unsignalled_.push_back(used_);
            used_ = used_.after(size_);
        }
        last_ = word;
        out_ -= taken.slots;
        pushed_ += taken.slots;
        space_.verify("push()");
        check_base();
    }

    void flush() {
        const bool any = pushed_ != 0;
        require(queue_.flush() == any, "flush() said {}", !any);
        if (any) space_.expect(first_.at, first_.value);
        pushed_ = 0;
        space_.verify("flush()");
        if (!any || in_.one_in(4)) return;  // asked later about both
        const uint16_t event = *space_.get<uint16_t>(guest_.vring.avail);
        const uint16_t flags = *space_.get<uint16_t>(guest_.vring.avail + 2) & 3;
        bool wanted = flags != 1;
        if (flags == 2 && guest_.event_idx() && (event & 0x7fff) < size_)
            wanted = std::ranges::any_of(unsignalled_,
                                         [&](Place p) { return p.half() == event; });
        require(queue_.needs_signal() == wanted, "needs_signal() is not {}", wanted);
        unsignalled_.clear();
        space_.verify("needs_signal()");
    }

    void notifications() {
        const unsigned which = in_.below(3);
        if (which == 2) {
            const bool idle = broken_ || room() == 0 || !is_available(next_);
            require(queue_.arm() == idle, "arm() is not {}", idle);
        } else {
            queue_.enable_notifications(which == 1);
        }
        // 2.8.14
        const bool events = which != 0 && guest_.event_idx();
        space_.expect(guest_.vring.used, events ? next_.half() : uint16_t{0});
        space_.expect(guest_.vring.used + 2, uint16_t(which == 0 ? 1 : events ? 2 : 0));
        space_.verify("notifications");
    }

    void restart(uint32_t base) {
        queue_.start_at(base);
        taken_.clear();
        unsignalled_.clear();
        out_ = pushed_ = 0;
        can_unpop_ = out_of_order_ = false;
        broken_ = (base & 0x7fff) >= size_;
        next_ = used_ = broken_ ? Place{} : Place{base & 0x7fff, (base & 0x8000) != 0};
        driver_ = next_;
        const uint64_t at = desc_at(next_.before(size_).slot) + 8;
        last_ = {at, *space_.get<uint64_t>(at)};
        require(queue_.broken() == broken_, "started at {:#x}, broken {}", base, queue_.broken());
        check_base();
    }
    void stop_and_start() {
        const auto mark = queue_.mark();
        switch (in_.below(8)) {
            case 0: restart(0x80008000); break;
            case 1: restart(in_.take<uint16_t>()); break;
            case 2: {
                auto other = guest_.vring;
                other.used += in_.one_of({0, 2, 0x1000000});
                const bool same = other.used == guest_.vring.used;
                queue_.unbind();
                require(queue_.bind(space_, other, guest_.features) == same, "bind()");
                if (!same) require(queue_.bind(space_, guest_.vring, guest_.features), "bind()");
                check_base();
                break;
            }
            case 3: {  // as after a pause: all returned, and on from the mark
                while (!taken_.empty()) push();
                flush();
                restart(mark.base);
                break;
            }
            default: {
                const uint64_t now = *space_.get<uint64_t>(last_.at);
                if (!broken_ && pushed_ == 0 && now == last_.value)
                    require(queue_.continues(mark, mark.base), "the ring is not recognised");
                require(!queue_.continues(mark, mark.base ^ 1), "another place is recognised");
            }
        }
        space_.verify("start");
    }

    struct Word {
        uint64_t at = 0, value = 0;
    };

    Input in_;
    Guest guest_;
    HostileSpace& space_;
    const uint32_t size_;
    virtq::Queue<HostileSpace> queue_;
    virtq::Chain chain_;
    Place driver_;        // where a driver that follows the rules would go on
    Place next_, used_;   // the device's
    uint32_t out_ = 0, pushed_ = 0;
    Word first_, last_;
    bool broken_ = false, can_unpop_ = false, out_of_order_ = false;
    std::deque<virtq::Taken> taken_;
    std::vector<Place> unsignalled_;  // slots that were returned since needs_signal()
};

}  // namespace
}  // namespace viommu::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    viommu::fuzz::Session(viommu::fuzz::Input(data, size)).run();
    return 0;
}
