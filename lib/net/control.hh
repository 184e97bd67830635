// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "filter.hh"
#include "rss.hh"

namespace viommu::net {

/// What a guest sets by commands, and the commands (5.1.6.5). No rings: bytes in, a status out.
///
/// Threads: reset() while no other method runs; execute(): one; the rest any
class Control {
  public:
    /// A command is read up to here. A MAC table may have 10,000 addresses; the rest is short.
    static constexpr size_t kMaxCommandBytes = 65536;

    struct Limits {
        std::array<uint8_t, 6> mac;
        uint16_t max_pairs;
    };
    explicit Control(const Limits& limits) : limits_(limits) { reset(0); }

    /// As after a reset of the device, of which `negotiated` has been accepted.
    void reset(uint64_t negotiated) noexcept;
    /// The same, with the features that were accepted before. Threads: as execute()
    void restart() noexcept;

    /// Do what `command` says: struct virtio_net_ctrl without the ack. Returns the ack.
    ///
    /// Guest:  a private copy
    /// Errors: VIRTIO_NET_ERR: a class or command that is unknown or not negotiated; too short, or
    ///         longer than the command is; a value that does not exist. Nothing has changed.
    uint8_t execute(std::span<const std::byte> command) noexcept;

    /// Receive offloads that are on, and all other negotiated feature bits.
    uint64_t features() const noexcept { return features_.load(std::memory_order_relaxed); }
    /// A receiveq of this pair may be used. Where no command says which are, all may.
    bool in_use(uint16_t pair) const noexcept {
        return pair < steering_.pairs() || !says_pairs();
    }
    /// The guest says how many pairs are in use.
    bool says_pairs() const noexcept {
        constexpr uint64_t either = uint64_t{1} << wire::VIRTIO_NET_F_MQ |
                                    uint64_t{1} << wire::VIRTIO_NET_F_RSS;
        return (features() & either) != 0;
    }
    const Filter& filter() const noexcept { return filter_; }
    const Steering& steering() const noexcept { return steering_; }
    /// Where no command says how many pairs are in use. Threads: as reset()
    void set_pairs(uint16_t pairs) noexcept { steering_.set_pairs(pairs); }

  private:
    using Data = std::span<const std::byte>;
    bool receive_mode(uint8_t command, Data data) noexcept;
    bool mac(uint8_t command, Data data) noexcept;
    bool mac_table(Data data) noexcept;
    bool vlan(uint8_t command, Data data) noexcept;
    bool multi_queue(uint8_t command, Data data) noexcept;
    bool guest_offloads(uint8_t command, Data data) noexcept;
    bool accepted(unsigned feature) const noexcept { return (negotiated_ >> feature & 1) != 0; }

    const Limits limits_;
    uint64_t negotiated_ = 0;
    std::atomic<uint64_t> features_{0};
    Filter filter_;
    Steering steering_;
};

}  // namespace viommu::net
