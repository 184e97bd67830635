// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "dirty_log.hh"
#include "memory_map.hh"
#include "viommu_base.hh"

namespace viommu::virtq {

/// What the addresses in a ring mean. A queue is generic over this, so that the same code serves
/// a device whose descriptors hold GPAs and one whose descriptors hold IOVAs.
///
/// resolve(addr, bytes, need): our memory that starts at `addr` and may be accessed as `need` says:
/// at most `bytes`, less where contiguity in our memory ends, empty when the first byte cannot be
/// accessed. `bytes` > 0; the work is proportional to it, so callers bound guest numbers first.
/// How long the result stays valid is the space's contract (GPAs: as long as the memory map; IOVAs:
/// as long as the reader's section).
///
/// A space of a device that can be migrated also has dirty_log(), constant while a queue is bound.
/// Queues keep it for their rings; who writes through resolve() says so by wrote(), below.
template <class S>
concept AddressSpace = requires(S& space, uint64_t addr, uint64_t bytes, Access need) {
    { space.resolve(addr, bytes, need) }
    noexcept->std::same_as<std::span<std::byte>>;
};

template <AddressSpace Space>
const DirtyLog* dirty_log_of(const Space& space) noexcept {
    if constexpr (requires { space.dirty_log(); })
        return space.dirty_log();
    else
        return nullptr;
}

/// `what`, which resolve() gave, has just been written.
template <AddressSpace Space>
void wrote(const Space& space, std::span<const std::byte> what) noexcept {
    if (const DirtyLog* log = dirty_log_of(space)) [[unlikely]]
        log->wrote(what);
}

/// Guest-physical addresses. The map outlives its use here.
class GpaSpace {
  public:
    GpaSpace() = default;
    explicit GpaSpace(const MemoryMap& memory) : memory_(&memory) {}

    std::span<std::byte> resolve(uint64_t addr, uint64_t bytes, Access) noexcept {
        return memory_ == nullptr ? std::span<std::byte>{} : memory_->at({addr}, bytes);
    }

    /// Null: nobody wants to know. Outlives its use here, like the map.
    void set_dirty_log(const DirtyLog* log) noexcept { log_ = log; }
    const DirtyLog* dirty_log() const noexcept { return log_; }

  private:
    const MemoryMap* memory_ = nullptr;
    const DirtyLog* log_ = nullptr;
};
static_assert(AddressSpace<GpaSpace>);

}  // namespace viommu::virtq
