// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <stdexcept>
#include <vector>

#include "page_space.hh"

namespace viommu::virtq::test {

/// A buffer of a chain as a driver would describe it; `next` is of split rings only.
struct Desc {
    uint64_t addr = 0;
    uint32_t len = 0;
    uint16_t flags = 0;
    uint16_t next = 0;
};

inline constexpr uint16_t kNext = wire::VIRTQ_DESC_F_NEXT;
inline constexpr uint16_t kWrite = wire::VIRTQ_DESC_F_WRITE;
inline constexpr uint16_t kIndirect = wire::VIRTQ_DESC_F_INDIRECT;

constexpr uint64_t feature(unsigned bit) { return uint64_t{1} << bit; }

/// The driver's side of a ring of either format.
class Driver {
  public:
    struct Used {
        uint32_t id, len;
    };
    virtual ~Driver() = default;

    /// A chain of free descriptors. Nothing when there are too few. Seen after publish().
    virtual std::optional<uint16_t> chain(const std::vector<Desc>& buffers) = 0;
    /// A chain in a table at `table`.
    virtual std::optional<uint16_t> indirect(uint64_t table, const std::vector<Desc>& buffers) = 0;
    virtual void publish() = 0;
    /// Whether the device wants a kick for what was published since this was last asked, decided
    /// one descriptor at a time.
    virtual bool needs_kick() = 0;
    /// The next chain that the device returned; its descriptors are free again.
    virtual std::optional<Used> pop() = 0;
    virtual size_t free_descriptors() const = 0;

    virtual void want_interrupts(bool on) = 0;
    /// With EVENT_IDX: an interrupt when the device returns what is `skip` (split: elements;
    /// packed: descriptors) after what pop() finds next.
    virtual void want_interrupt_after(uint32_t skip) = 0;
    /// Whether the device, returning these chains next, has to signal; one at a time.
    virtual bool expects_signal(const std::vector<uint16_t>& returned) = 0;
};

}  // namespace viommu::virtq::test
