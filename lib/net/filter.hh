// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "viommu_wire.hh"

struct rte_mbuf;

namespace viommu::net {

/// Which packets a guest wants, by destination and VLAN.
///
/// Spec: 5.1.6.5.1 (modes), 5.1.6.5.2 (MAC table), 5.1.6.5.3 (VLANs). A promiscuous guest gets
///       all, tagged or not; of the others NOMULTI, NOUNI and NOBCAST win over ALLMULTI and ALLUNI.
///
/// It begins promiscuous, as other devices do: a driver that never sends a command gets everything.
///
/// Set by one thread while others ask. Words are values of their own, as in Steering.
///
/// Threads: setters: one; accepts(): any
class Filter {
  public:
    /// More addresses of a kind than this: all of that kind are accepted (5.1.6.5.2 allows it).
    static constexpr size_t kMaxAddresses = 64;
    static constexpr uint16_t kVlans = 4096;

    /// As after a reset. `vlans`: VLANs are filtered (VIRTIO_NET_F_CTRL_VLAN), and there are none.
    void reset(std::array<uint8_t, 6> mac, bool vlans) noexcept;
    /// `command` of class VIRTIO_NET_CTRL_RX.
    void set_mode(uint8_t command, bool on) noexcept;
    void set_mac(std::array<uint8_t, 6> mac) noexcept;
    std::array<uint8_t, 6> mac() const noexcept;
    /// Six bytes each.
    void set_table(std::span<const std::byte> unicast, std::span<const std::byte> multicast)
        noexcept;
    void set_vlan(uint16_t id, bool on) noexcept;

    bool accepts(const rte_mbuf& packet) const noexcept {
        if ((modes_.load(std::memory_order_relaxed) & kPromiscuous) != 0) [[likely]]
            return true;
        return looks_right(packet);
    }

  private:
    struct Table {
        std::atomic<uint32_t> count{0};
        std::array<std::atomic<uint64_t>, kMaxAddresses> address{};

        void set(std::span<const std::byte> bytes) noexcept;
        bool has(uint64_t mac) const noexcept;
    };
    static constexpr uint32_t kPromiscuous = 1u << wire::VIRTIO_NET_CTRL_RX_PROMISC;

    bool looks_right(const rte_mbuf& packet) const noexcept;

    std::atomic<uint32_t> modes_{kPromiscuous};  ///< bits by command
    std::atomic<uint64_t> mac_{0};
    Table unicast_, multicast_;
    std::atomic<bool> vlans_filtered_{false};
    std::array<std::atomic<uint64_t>, kVlans / 64> vlans_{};
};

}  // namespace viommu::net
