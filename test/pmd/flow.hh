// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <random>
#include <string>

#include "viommu_guest.hh"

namespace viommu::pmd {

/// Packets from a pair of one guest's port to the same pair of another's, each with a number and a
/// hash of all its bytes. What arrives is what was sent, in order, or it is said what is wrong.
/// Threads: one.
class Flow {
  public:
    Flow(guest::NetDriver& from, guest::NetDriver& to, uint16_t pair = 0, uint32_t seed = 1)
        : from_(&from), to_(&to), pair_(pair), rng_(seed) {}

    /// Send some, as long as no more than a window is under way, and take what has arrived.
    /// Errors: a queue's; a packet that was changed, or came out of order.
    Result<void> pump(uint64_t up_to);
    /// pump() until `count` more have arrived. Errors: also when one is missing.
    Result<void> deliver(uint64_t count);
    /// pump() until one more has arrived, whatever was lost before: after one end was killed. A
    /// burst that was under way may have been delivered, and come again.
    Result<void> recover();
    /// Other drivers of the same ports.
    void connect(guest::NetDriver& from, guest::NetDriver& to) {
        from_ = &from;
        to_ = &to;
    }

    uint64_t sent() const { return sent_; }
    uint64_t received() const { return received_; }
    void set_max_bytes(size_t bytes) { max_bytes_ = bytes; }

  private:
    static constexpr size_t kEthernet = 14, kMin = kEthernet + 16;
    static constexpr uint64_t kWindow = 64, kBurst = 32;

    uint32_t write(std::span<std::byte> room);
    void read(std::span<const std::byte> packet);

    guest::NetDriver* from_;
    guest::NetDriver* to_;
    const uint16_t pair_;
    std::mt19937 rng_;
    size_t max_bytes_ = 1500;
    uint64_t sent_ = 0, received_ = 0;
    uint64_t next_ = 0;  ///< the number that is to come

    uint64_t written_off_ = 0;  ///< numbers below it are under way no longer
    bool strict_ = true;        ///< no other may come
    std::string wrong_;
};

}  // namespace viommu::pmd
