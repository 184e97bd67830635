// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "viommu_wire.hh"

struct rte_mbuf;

namespace viommu::net {

inline constexpr uint8_t kRssMaxKeyBytes = 40;    ///< what an IPv6 address pair and ports need
inline constexpr uint16_t kRssMaxTable = 128;
inline constexpr uint32_t kRssHashTypes =
    wire::VIRTIO_NET_HASH_TYPE_IPv4 | wire::VIRTIO_NET_HASH_TYPE_TCPv4 |
    wire::VIRTIO_NET_HASH_TYPE_UDPv4 | wire::VIRTIO_NET_HASH_TYPE_IPv6 |
    wire::VIRTIO_NET_HASH_TYPE_TCPv6 | wire::VIRTIO_NET_HASH_TYPE_UDPv6;

/// What a guest has set by VIRTIO_NET_CTRL_MQ_RSS_CONFIG, checked. Also what an ethdev can be
/// programmed with, whose queue n is then the guest's pair n.
struct Rss {
    uint32_t hash_types = 0;
    uint16_t entries = 1;             ///< of `table`; a power of 2
    uint16_t unclassified_pair = 0;   ///< for packets without a hash
    uint16_t pairs = 1;               ///< that are in use: receiveqs named here, and transmitqs
    std::array<uint16_t, kRssMaxTable> table{};  ///< pairs
    uint8_t key_bytes = 0;                       ///< as the guest gave it; the rest is zero
    std::array<uint8_t, kRssMaxKeyBytes> key{};

    /// Spec:   5.1.6.5.7.1
    /// Guest:  `data` is a private copy of the command-specific data
    /// Errors: nothing: too short, longer by more than a byte, a queue that does not exist, an
    ///         unknown hash type, a table that is too large or no power of 2, a key that is too
    ///         long or, where there is something to be hashed, empty
    static std::optional<Rss> decode(std::span<const std::byte> data, uint16_t max_pairs);

    bool operator==(const Rss&) const = default;
};

/// The hash of a packet (5.1.6.4.3). Nothing: its kind is not in `hash_types`.
/// `key`: 10 words of the key in the machine's order
std::optional<uint32_t> rss_hash(const rte_mbuf& packet, uint32_t hash_types,
                                 std::span<const uint32_t, kRssMaxKeyBytes / 4> key) noexcept;

/// Which receiveq a packet goes to: as many pairs as there are in turn, or by RSS.
///
/// One thread sets it while others ask. Each word is a value of its own: who asks during a change
/// gets an answer by the old words or by the new or by some of each, which is always a pair that
/// exists; doc/ordering.md says why that is enough.
///
/// Threads: set and get: one; pair_for(), pairs(): any
class Steering {
  public:
    /// Each of `pairs` (>= 1) gets what comes by the peer's queue of its number.
    void set_pairs(uint16_t pairs) noexcept;
    void set(const Rss& rss) noexcept;
    uint16_t pairs() const noexcept { return pairs_.load(std::memory_order_relaxed); }
    /// `from`: the queue of the peer by which the packet came.
    uint16_t pair_for(const rte_mbuf& packet, uint16_t from) const noexcept {
        if (!by_hash_.load(std::memory_order_relaxed)) [[likely]] {
            const uint16_t n = pairs();
            return from < n ? from : uint16_t(from % n);
        }
        return by_hash(packet);
    }
    bool is_by_hash() const noexcept { return by_hash_.load(std::memory_order_relaxed); }

    /// The whole setting, of one moment. Nothing: not by hash, or it is being changed all the time;
    /// version() tells when to ask again. Threads: any, but not a packet's business
    std::optional<Rss> snapshot() const noexcept;
    /// Changes with every setting.
    uint64_t version() const noexcept;

  private:
    template <class F>
    void change(F&& f) noexcept;
    uint16_t by_hash(const rte_mbuf& packet) const noexcept;

    std::atomic<uint64_t> version_{0};  ///< odd: being changed
    std::atomic<bool> by_hash_{false};
    std::atomic<uint16_t> pairs_{1};
    std::atomic<uint16_t> unclassified_{0};
    std::atomic<uint16_t> mask_{0};
    std::atomic<uint32_t> hash_types_{0};
    std::atomic<uint8_t> key_bytes_{0};
    std::array<std::atomic<uint32_t>, kRssMaxKeyBytes / 4> key_{};
    std::array<std::atomic<uint16_t>, kRssMaxTable> table_{};
};

}  // namespace viommu::net
