// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <optional>

#include "counters.hh"
#include "iova_space.hh"

namespace viommu::net {

/// One virtqueue of a port: where its ring is, its own reader, and bursts on it. What the queues of
/// a port are for is said by its heirs: TransmitQueue, ReceiveQueue.
///
/// A ring whose pages do not translate is *stalled*: nothing of it is touched, and each burst asks
/// again. It goes on where it stopped as soon as it translates. Ring pages are translated once and
/// again whenever the table's generation has moved.
///
/// Where a split ring starts is read from its used index, which is right because everything taken
/// is returned in order within the same burst, and needs no trust in a VMM that read the base from
/// the wrong page (aperture mode). A packed ring has no such index; there a VMM has nothing to read
/// either and keeps what it was told, so the ring starts at its base.
///
/// Of a ring virtq::kBurstDescriptors are read per burst, and a chain, and no more: chains may be
/// as long as the queue, and an UNMAP waits for the burst.
///
/// Threads: control methods while no other is under way; the rest on one lcore. Queues share
/// nothing that is written, so each may have an lcore of its own.
class NetQueue {
  public:
    /// The most packets of one burst.
    static constexpr unsigned kBurst = 32;

    explicit NetQueue(xlate::Reader reader) : reader_(std::move(reader)) {}
    NetQueue(const NetQueue&) = delete;
    NetQueue& operator=(const NetQueue&) = delete;

    // --- control ---------------------------------------------------------------------------------

    /// Both outlive their use here; null: nothing resolves, nobody wants to know.
    void set_memory(const virtq::MemoryMap* memory) noexcept { space_.set_memory(memory); }
    void set_dirty_log(const virtq::DirtyLog* log) noexcept { space_.set_dirty_log(log); }
    /// `vring` has IOVAs; nothing: it cannot be a ring, which is counted. `base`: the frontend's.
    /// `acked`: the features, which decide the ring's format and the packets'.
    void start(const std::optional<virtq::Vring>& vring, uint32_t base, uint64_t acked);
    /// Returns what GET_VRING_BASE answers; the frontend's own base when the ring could never be
    /// read.
    uint32_t stop() noexcept;

    /// Translate by another reader, of the same endpoint in another table.
    /// What the ring was bound to is the old table's business.
    void use_reader(xlate::Reader reader) noexcept {
        ring_.unbind();
        stalled_ = false;
        reader_.become(std::move(reader));
    }

    // --- state -----------------------------------------------------------------------------------

    bool runs() const noexcept { return vring_.has_value(); }
    /// -1: none, or not running.
    int kick_fd() const noexcept { return vring_ ? vring_->kick_fd : -1; }
    /// Threads: any.
    const Counters& counters() const noexcept { return counters_; }
    /// Of ring pages and buffers. Threads: any.
    uint64_t translations() const noexcept { return translations_.was(); }
    /// Faults that found the queue to the writer full. Threads: any.
    uint64_t lost_faults() const noexcept { return reader_.lost_faults(); }

    // --- sleeping --------------------------------------------------------------------------------

    /// Ask the guest to kick for what it makes available. False when there is something.
    bool arm() noexcept;
    void disarm() noexcept;
    /// A stalled ring can ask for no kick, so it must be polled now and then.
    std::chrono::microseconds sleep_limit() const noexcept;

  protected:
    ~NetQueue() = default;
    using Ring = virtq::Queue<IovaSpace>;

    /// A reader section for one burst. True when the ring can be used in it. At its end what was
    /// pushed is published inside the section, and the guest is signalled after it: a system call
    /// does not hold up UNMAPs.
    class Burst {
      public:
        explicit Burst(NetQueue& queue) noexcept : queue_(queue) {
            if (!queue.vring_) return;
            queue.reader_.enter();
            inside_ = true;
            queue.descriptors_ = 0;
            ready_ = queue.ready();
        }
        ~Burst() {
            if (!inside_) return;
            const bool signal = ready_ && queue_.ring_.flush() && queue_.ring_.needs_signal();
            queue_.reader_.leave();
            queue_.translations_.add(queue_.space_.take_asked());
            if (signal) queue_.ring_.signal();
        }
        Burst(const Burst&) = delete;
        Burst& operator=(const Burst&) = delete;

        explicit operator bool() const noexcept { return ready_; }

      private:
        NetQueue& queue_;
        bool inside_ = false;
        bool ready_ = false;
    };

    bool acked(unsigned feature) const noexcept { return virtq::negotiated(acked_, feature); }
    /// True once after a start: the ring does not go on where the one before it ended.
    bool begins_anew() noexcept { return std::exchange(anew_, false); }
    /// Take the next chain into chain_; kEmpty also when the burst has read enough.
    virtq::Pop take_chain() noexcept;
    /// pop_plain() of the queue's ring, within what the burst may read.
    template <class Q>
    unsigned pop_plain(Q& queue, std::span<virtq::Plain> out,
                       const virtq::PlainLimits& limits) noexcept {
        if (descriptors_ >= virtq::kBurstDescriptors) [[unlikely]]
            return 0;
        const unsigned taken = queue.pop_plain(out, limits);
        descriptors_ += taken;
        return taken;
    }
    /// At the end of a burst: whether the ring has broken in it.
    void count_broken() noexcept;

    xlate::Reader reader_;
    IovaSpace space_{reader_};
    Ring ring_;
    virtq::Chain chain_;
    uint32_t descriptors_ = 0;  // read in this burst
    uint64_t acked_ = 0;
    Counters counters_;

  private:
    bool ready() noexcept;

    std::optional<virtq::Vring> vring_;  // running; addresses are IOVAs
    uint64_t generation_ = 0;            // of the table when the ring was bound
    uint32_t base_ = 0;                  // what the frontend said; all we know until started_
    bool started_ = false;               // the index has been taken from the used ring
    bool stalled_ = false;
    bool anew_ = false;
    std::optional<virtq::RingEnd> end_;  // of the ring before this one
    uint64_t broken_seen_ = 0;
    Counter translations_;
};

}  // namespace viommu::net
