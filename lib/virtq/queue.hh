// SPDX-License-Identifier: BSD-3-Clause
/// The device side of one virtqueue, whatever its format.
///
///     virtq::GpaSpace space(memory);                         // memory outlives the binding
///     virtq::Queue<virtq::GpaSpace> queue;
///     virtq::Chain chain;                                    // 16 KiB: a member, not a local
///     if (!queue.bind(space, vring, features)) return;       // vring: addresses of that space
///     chain.reserve(vring.size);
///     queue.start_at_used_or(vring.base);                    // or start_at(vring.base)
///     queue.enable_notifications(false);                     // we poll
///     ...
///     while (queue.pop(chain) == virtq::Pop::kChain) {       // bound the burst
///         auto in = queue.gather(chain.readable(), request);
///         auto out = queue.scatter(reply, chain.writable());
///         queue.push(chain.taken(), out.bytes);
///     }                                                      // kMalformed, kFault: 0 bytes
///     queue.complete();                                      // publish, and signal when wanted
///     if (queue.arm()) ... sleep on vring.kick_fd ...; queue.enable_notifications(false);
///
/// Threads: one, the owner's; binding and starting may be done by another while that one is away.
#pragma once

#include "packed_queue.hh"
#include "split_queue.hh"

namespace viommu::virtq {

/// Where a ring was that was stopped, and where it ended: to recognise it when one is started.
struct RingEnd {
    Vring vring;
    Mark mark;
    bool packed;
};

/// A queue of the format that was negotiated. Each operation is that of SplitQueue or PackedQueue;
/// it costs one more branch, always the same one.
template <AddressSpace Space>
class Queue {
  public:
    bool bind(Space& space, const Vring& vring, uint64_t features) noexcept {
        unbind();
        is_packed_ = negotiated(features, wire::VIRTIO_F_RING_PACKED);
        return is_packed_ ? packed_.bind(space, vring, features)
                          : split_.bind(space, vring, features);
    }
    bool is_unmoved(Space& space) const noexcept {
        return is_packed_ ? packed_.is_unmoved(space) : split_.is_unmoved(space);
    }
    void unbind() noexcept { is_packed_ ? packed_.unbind() : split_.unbind(); }
    bool bound() const noexcept { return is_packed_ ? packed_.bound() : split_.bound(); }
    bool is_packed() const noexcept { return is_packed_; }

    void start_at(uint32_t base) noexcept {
        is_packed_ ? packed_.start_at(base) : split_.start_at(base);
    }
    /// Begin where the used ring ends; or, since a packed ring does not say that, at `base`.
    void start_at_used_or(uint32_t base) noexcept {
        is_packed_ ? packed_.start_at(base) : split_.start_at_used();
    }
    /// What GET_VRING_BASE answers (Vring::base).
    uint32_t next_base() const noexcept {
        return is_packed_ ? packed_.next_base() : split_.next_base();
    }
    Mark mark() const noexcept { return is_packed_ ? packed_.mark() : split_.mark(); }
    /// Whether the ring, bound again and not started yet, is the one that ended with `mark`: what
    /// was written last is still there, and a frontend that can know (packed rings) says so too.
    bool continues(const Mark& mark, uint32_t base) const noexcept {
        return is_packed_ ? packed_.continues(mark, base) : split_.continues(mark, base);
    }
    /// The end of this ring, which is at `vring`.
    RingEnd end(const Vring& vring) const noexcept { return {vring, mark(), is_packed_}; }
    /// The same of a ring at `vring`: also its place, its size and its format are what they were.
    bool continues(const RingEnd& end, const Vring& vring) const noexcept {
        return end.packed == is_packed_ && end.vring.desc == vring.desc &&
               end.vring.avail == vring.avail && end.vring.used == vring.used &&
               end.vring.size == vring.size && continues(end.mark, vring.base);
    }
    uint32_t size() const noexcept { return is_packed_ ? packed_.size() : split_.size(); }
    bool broken() const noexcept { return is_packed_ ? packed_.broken() : split_.broken(); }

    /// How many chains, at most `most`, there seem to be for pop(). 0 is certain.
    unsigned available(unsigned most = ~0u) noexcept {
        return is_packed_ ? packed_.available(most) : split_.available(most);
    }
    Pop pop(Chain& chain) noexcept { return is_packed_ ? packed_.pop(chain) : split_.pop(chain); }
    void unpop(const Taken& taken) noexcept {
        is_packed_ ? packed_.unpop(taken) : split_.unpop(taken);
    }
    Copied gather(std::span<const Segment> from, std::span<std::byte> to) noexcept {
        return is_packed_ ? packed_.gather(from, to) : split_.gather(from, to);
    }
    Copied scatter(std::span<const std::byte> from, std::span<const Segment> to) noexcept {
        return is_packed_ ? packed_.scatter(from, to) : split_.scatter(from, to);
    }

    void push(const Taken& taken, uint32_t written) noexcept {
        is_packed_ ? packed_.push(taken, written) : split_.push(taken, written);
    }
    bool flush() noexcept { return is_packed_ ? packed_.flush() : split_.flush(); }
    bool needs_signal() noexcept {
        return is_packed_ ? packed_.needs_signal() : split_.needs_signal();
    }
    void signal() noexcept { is_packed_ ? packed_.signal() : split_.signal(); }
    void complete() noexcept { is_packed_ ? packed_.complete() : split_.complete(); }

    void enable_notifications(bool on) noexcept {
        is_packed_ ? packed_.enable_notifications(on) : split_.enable_notifications(on);
    }
    bool arm() noexcept { return is_packed_ ? packed_.arm() : split_.arm(); }
    unsigned was_available() noexcept {
        return is_packed_ ? packed_.was_available() : split_.was_available();
    }

    /// f(the queue of the format that it is): asked once for many operations.
    template <class F>
    auto visit(F&& f) noexcept {
        return is_packed_ ? f(packed_) : f(split_);
    }

    const QueueStats& stats() const noexcept { return stats_; }

  private:
    QueueStats stats_;
    bool is_packed_ = false;
    SplitQueue<Space> split_{&stats_};
    PackedQueue<Space> packed_{&stats_};
};

}  // namespace viommu::virtq
