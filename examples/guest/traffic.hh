// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "viommu_guest.hh"

namespace viommu::example {

/// Ethernet header and sequence number.
inline constexpr uint32_t kMinPacketBytes = 14 + 8;
inline constexpr uint32_t kMaxPacketBytes = 1514;

/// Packets that can be told apart: number `sequence` of a stream between two MAC addresses, every
/// byte after it a function of it.
class Pattern {
  public:
    Pattern(std::array<uint8_t, 6> from, std::array<uint8_t, 6> to, uint32_t bytes);

    uint32_t bytes() const { return bytes_; }
    /// Returns the length.
    uint32_t write(uint64_t sequence, std::span<std::byte> room) const;
    bool matches(uint64_t sequence, std::span<const std::byte> packet) const;

  private:
    std::array<std::byte, 14> ethernet_;
    uint32_t bytes_;
};

struct Passed {
    uint64_t sent = 0, received = 0, verified = 0;
    double seconds = 0;
};

/// Send `count` packets into `from` and, unless `to` is null, receive and compare each of them
/// there. Never more are on the way than `to` has buffers for, so none may be lost.
/// Errors: one is missing, out of order or changed; says which.
Result<Passed> pass_packets(guest::NetDriver& from, guest::NetDriver* to, const Pattern& pattern,
                            uint64_t count, guest::Milliseconds patience);

/// A page that only one packet needs is mapped, sent from, unmapped, and sent from again: the first
/// packet must arrive, the second must not, and must be reported. Returns the report.
Result<guest::FaultEvent> provoke_fault(guest::Guest& guest, const Pattern& pattern,
                                        guest::Milliseconds patience);

}  // namespace viommu::example
