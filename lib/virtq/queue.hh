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

#include "split_queue.hh"

namespace viommu::virtq {

/// A queue of the format that was negotiated. Each operation is that of SplitQueue; it costs one
/// more branch, always the same one.
template <AddressSpace Space>
class Queue {
  public:
    bool bind(Space& space, const Vring& vring, uint64_t features) noexcept {
        return split_.bind(space, vring, features);
    }
    void unbind() noexcept { split_.unbind(); }
    bool bound() const noexcept { return split_.bound(); }

    void start_at(uint32_t base) noexcept { split_.start_at(base); }
    /// Begin where the used ring ends; or, since a packed ring does not say that, at `base`.
    void start_at_used_or(uint32_t /*base*/) noexcept { split_.start_at_used(); }
    /// What GET_VRING_BASE answers (Vring::base).
    uint32_t next_base() const noexcept { return split_.next_base(); }
    Mark mark() const noexcept { return split_.mark(); }
    /// Whether the ring, bound again and not started yet, is the one that ended with `mark`: what
    /// was written last is still there, and a frontend that can know (packed rings) says so too.
    bool continues(const Mark& mark, uint32_t base) const noexcept {
        return split_.continues(mark, base);
    }
    uint32_t size() const noexcept { return split_.size(); }
    bool broken() const noexcept { return split_.broken(); }

    unsigned available(unsigned most = ~0u) noexcept { return split_.available(most); }
    Pop pop(Chain& chain) noexcept { return split_.pop(chain); }
    void unpop(const Taken& taken) noexcept { split_.unpop(taken); }
    Copied gather(std::span<const Segment> from, std::span<std::byte> to) noexcept {
        return split_.gather(from, to);
    }
    Copied scatter(std::span<const std::byte> from, std::span<const Segment> to) noexcept {
        return split_.scatter(from, to);
    }

    void push(const Taken& taken, uint32_t written) noexcept { split_.push(taken, written); }
    bool flush() noexcept { return split_.flush(); }
    bool needs_signal() noexcept { return split_.needs_signal(); }
    void signal() noexcept { split_.signal(); }
    void complete() noexcept { split_.complete(); }

    void enable_notifications(bool on) noexcept { split_.enable_notifications(on); }
    bool arm() noexcept { return split_.arm(); }
    unsigned was_available() const noexcept { return split_.was_available(); }

    const QueueStats& stats() const noexcept { return stats_; }

  private:
    QueueStats stats_;
    SplitQueue<Space> split_{&stats_};
};

}  // namespace viommu::virtq
