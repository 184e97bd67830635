// SPDX-License-Identifier: BSD-3-Clause
/// The device's end of the packets of `net`: what a switch would do, as little as that can be, and
/// the same for every backend.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "viommu_base.hh"

struct rte_mbuf;
struct rte_mempool;

namespace viommu::perf {

enum class Way : uint8_t { kFromGuest, kToGuest, kBoth };
const char* to_string(Way way);

/// Which packets, and over which rings.
struct PacketCase {
    uint32_t bytes;  ///< of the frame, without virtio's header
    Way way;
    bool packed;

    bool from_guest() const { return way != Way::kToGuest; }
    bool to_guest() const { return way != Way::kFromGuest; }
};

inline constexpr unsigned kPacketBurst = 32;
inline constexpr uint16_t kPacketRing = 256;
inline constexpr uint32_t kMbufRoom = 2048;

/// What a packet holds. Its number stands behind the Ethernet header, in the cache line that any
/// receiver reads; so order, loss and doubling are seen for every packet, timed or not. The other
/// bytes depend on the number too, and are written and compared when that is not timed.
struct Content {
    static constexpr uint32_t kNumberAt = 14;
    static std::byte at(uint32_t offset, uint64_t number);
    static void stamp(std::span<std::byte> head, uint64_t number);
    static uint64_t number(std::span<const std::byte> head);
    static void write(std::span<std::byte> piece, uint32_t offset, uint64_t number);
    static bool is(std::span<const std::byte> piece, uint32_t offset, uint64_t number);
};

/// Packet pools; one for each end, so that what one has written is not what the other gives away.
class PacketPools {
  public:
    /// Errors: no memory. EAL must have been initialised.
    static Result<std::unique_ptr<PacketPools>> create();
    ~PacketPools();

    rte_mempool& from_guest() { return *from_; }
    rte_mempool& to_guest() { return *to_; }
    /// Errors: packets that nobody has given back.
    Result<void> check_complete() const;

  private:
    PacketPools() = default;
    rte_mempool* from_ = nullptr;
    rte_mempool* to_ = nullptr;
};

/// A virtio-net device's packet functions. Threads: the device's.
class Backend {
  public:
    virtual ~Backend() = default;
    /// Packets that the guest sends; the caller owns them.
    virtual unsigned from_guest(std::span<rte_mbuf*> out) noexcept = 0;
    /// Packets to the guest, from the front; what it takes it frees, before or after.
    virtual unsigned to_guest(std::span<rte_mbuf*> in) noexcept = 0;
};

/// Moves packets: takes, looks at and frees those of the guest; makes those for it, in bursts.
///
/// Threads: round() the device's; the rest the guest's, which may read counters at any time.
class Traffic {
  public:
    enum class Mode : uint32_t {
        kStill,
        kFree,   ///< as fast as it goes
        kDrain,  ///< take all, give nothing new
        kTurns,  ///< one turn for each begin_turn(): all that is in the rings, and timed
    };

    Traffic(Backend& backend, const PacketCase& c, PacketPools& pools)
        : backend_(backend), case_(c), pools_(pools) {}
    ~Traffic();
    Traffic(const Traffic&) = delete;
    Traffic& operator=(const Traffic&) = delete;

    /// Returns how many packets were moved.
    unsigned round() noexcept;

    /// While the device's thread does not run, or is still.
    void set_thorough(bool on);
    void set_mode(Mode mode) { mode_.store(mode, std::memory_order_release); }
    /// After kDrain: nothing is given any more.
    bool is_quiet() const { return quiet_.load(std::memory_order_acquire); }

    void begin_turn() { turn_.store(true, std::memory_order_release); }
    bool turn_is_over() const { return !turn_.load(std::memory_order_acquire); }

    uint64_t taken() const { return counts_.taken.load(std::memory_order_acquire); }
    uint64_t given() const { return counts_.given.load(std::memory_order_acquire); }
    uint64_t moved() const { return taken() + given(); }
    uint64_t wrong() const { return counts_.wrong.load(std::memory_order_relaxed); }
    /// Of all turns.
    uint64_t turn_ticks() const { return counts_.ticks.load(std::memory_order_relaxed); }

  private:
    unsigned take() noexcept;
    unsigned give() noexcept;
    void take_turn() noexcept;
    bool look_at(const rte_mbuf& packet) const noexcept;
    static void write_all(rte_mbuf& packet, uint64_t number) noexcept;
    void refill() noexcept;

    Backend& backend_;
    const PacketCase case_;
    PacketPools& pools_;
    bool thorough_ = false;

    alignas(64) std::atomic<Mode> mode_{Mode::kStill};
    std::atomic<bool> quiet_{false};
    std::atomic<bool> turn_{false};

    struct alignas(64) Counts {
        std::atomic<uint64_t> taken{0}, given{0}, wrong{0}, ticks{0};
    };
    Counts counts_;
    alignas(64) uint64_t next_taken_ = 0;
    uint64_t next_given_ = 0;
    unsigned waiting_ = 0;  // packets that are made but not taken
    std::array<rte_mbuf*, kPacketBurst> packets_{};
};

}  // namespace viommu::perf
