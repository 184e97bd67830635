// SPDX-License-Identifier: BSD-3-Clause
/// Two ends, the packets between them, and the lcores that move these.
///
///   Direction  from the pairs of one end to the queues of the other: counters, and who may send
///   Patch      what one lcore does of both directions: a Pollable
///
/// Contract: a poll does a bounded amount of work, whatever the ends do: less than two bursts for
/// each direction. What an end does not take is offered once more at once, then dropped and
/// counted; so an end that takes nothing costs the lcore a burst's work in its turn, as one that
/// takes all, and never a wait.
///
/// A queue that several lcores may send to is guarded by a flag: one that finds it taken goes on
/// with something else and comes back in its next poll, keeping the packets, and takes nothing more
/// from that pair until then. Nothing is lost for it, since who has the flag is in one burst and
/// will be out of it; nobody spins. Where lcores cannot meet there is no flag.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "packet_end.hh"
#include "viommu_poll.hh"

namespace viommu::app {

/// Threads: each pair's part is used by one lcore at a time.
class Direction {
  public:
    /// Of the packets that came from one pair.
    struct Counters {
        Counter packets;       ///< taken by the receiving end
        Counter bytes;         ///< of these
        Counter dropped_full;  ///< not taken
        Counter waits;         ///< polls in which another lcore was at the queue

        /// f(name, value)
        template <class F>
        void for_each(F&& f) const {
            f("packets", packets.was());
            f("bytes", bytes.was());
            f("drop_full", dropped_full.was());
            f("waits", waits.was());
        }
    };

    /// `lcores`: how many have pairs of `from`; pair i is that of number i % lcores.
    Direction(PacketEnd& from, PacketEnd& to, unsigned lcores);

    PacketEnd& from() const noexcept { return from_; }
    PacketEnd& to() const noexcept { return to_; }
    /// Threads: any.
    const Counters& counters(uint16_t pair) const noexcept { return counters_[pair].its; }

    /// May the caller send to `queue` until leave()? Never waits.
    bool enter(uint16_t queue) noexcept {
        if (!guards_) return true;
        std::atomic<bool>& taken = guards_[queue].taken;
        // A look before the exchange: it leaves the cache line where it is.
        return !taken.load(std::memory_order_relaxed) &&
               !taken.exchange(true, std::memory_order_acquire);  // D2 pairs D1
    }
    void leave(uint16_t queue) noexcept {
        if (guards_) guards_[queue].taken.store(false, std::memory_order_release);  // D1 pairs D2
    }
    bool guarded() const noexcept { return guards_ != nullptr; }

  private:
    friend class Patch;
    static constexpr size_t kLine = 64;
    struct alignas(kLine) Guard {
        std::atomic<bool> taken{false};
    };
    struct alignas(kLine) OfPair {
        Counters its;
    };

    PacketEnd& from_;
    PacketEnd& to_;
    std::unique_ptr<OfPair[]> counters_;
    std::unique_ptr<Guard[]> guards_;  ///< null: lcores do not meet
};

/// Threads: as poll::Pollable.
class Patch final : public poll::Pollable {
  public:
    static constexpr unsigned kBurst = 32;

    Patch() = default;
    ~Patch() override;
    Patch(const Patch&) = delete;
    Patch& operator=(const Patch&) = delete;

    /// Have this lcore move what comes from `pair` of direction.from(). Before the first poll.
    void add(Direction& direction, uint16_t pair);
    bool empty() const noexcept { return lines_.empty(); }

    unsigned poll() noexcept override;
    bool arm() noexcept override;
    void disarm() noexcept override;
    std::span<const int> wake_fds() const noexcept override;
    std::chrono::microseconds sleep_limit() const noexcept override;

  private:
    /// A pair's packets on their way.
    struct Line {
        Direction* direction;
        uint16_t pair;
        unsigned waiting = 0;  ///< packets in `kept`: their queues were taken
        std::array<rte_mbuf*, kBurst> kept{};
    };
    /// The lines of one direction, in turn.
    struct Turn {
        Direction* direction;
        std::vector<Line*> lines{};
        size_t next = 0;
        bool control = false;  ///< pair 0 is among them
    };

    static unsigned poll(Turn& turn) noexcept;
    static unsigned move(Line& line) noexcept;
    static void distribute(Line& line, std::span<rte_mbuf*> packets) noexcept;
    static bool deliver(Line& line, uint16_t queue, std::span<rte_mbuf*> packets) noexcept;

    std::vector<std::unique_ptr<Line>> lines_;
    std::vector<Turn> turns_;            ///< two at most
    mutable std::vector<int> wake_fds_;  ///< of all lines, made by wake_fds()
};

}  // namespace viommu::app
