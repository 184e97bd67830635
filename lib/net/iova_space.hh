// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <utility>

#include "viommu_virtq.hh"
#include "viommu_xlate.hh"

namespace viommu::net {

/// The address space of an endpoint: IOVA -> GPA by its Reader, GPA -> our memory by the memory map
/// of its connection. What resolve() returns is valid until the reader leaves its section.
class IovaSpace {
    /// A copy of one of the map's; at first of none.
    struct Region {
        uint64_t gpa = 0, bytes = 0;
        std::byte* vva = nullptr;
    };

  public:
    explicit IovaSpace(xlate::Reader& reader) : reader_(reader) {}

    /// `memory` outlives its use here; null: nothing resolves.
    void set_memory(const virtq::MemoryMap* memory) noexcept {
        memory_ = memory;
        last_ = {};
    }
    /// Null: nobody wants to know. Outlives its use here.
    void set_dirty_log(const virtq::DirtyLog* log) noexcept { log_ = log; }
    const virtq::DirtyLog* dirty_log() const noexcept { return log_; }
    /// Whether a failure is reported to the guest. Off while an access is only being tried again.
    void report_faults(bool on) noexcept { report_ = on; }

    /// Threads: the reader's owner, inside a section
    /// Errors:  empty; the guest is told by its event queue. A mapping that leads to no guest
    ///          memory (an MSI doorbell, a device's registers) is R_UNKNOWN.
    std::span<std::byte> resolve(uint64_t addr, uint64_t bytes, Access need) noexcept {
        ++asked_;
        const xlate::Translation t = reader_.translate({addr}, bytes, need);
        if (!t) [[unlikely]] {
            fail(addr, need, t.fault());
            return {};
        }
        const auto found =
            memory_ == nullptr ? std::span<std::byte>{} : memory_->at(t.gpa(), t.bytes());
        if (found.empty()) [[unlikely]]
            fail(addr, need, xlate::FaultReason::kUnknown);
        return found;
    }

    /// Finds the buffers of a burst: a local variable, which the compiler keeps in registers. Quick
    /// for what is in the region, and near the place, that was found last.
    class Finder {
      public:
        explicit Finder(IovaSpace& space) noexcept
            : space_(&space), near_(space.reader_), last_(space.last_) {}

        /// resolve() of all of it in one piece, or null, which nobody is told of: whoever asks
        /// resolves it piece by piece then.
        [[gnu::always_inline]] std::byte* find(uint64_t addr, uint32_t bytes,
                                               Access need) noexcept {
            Gpa gpa{};
            if (near_.find({addr}, bytes, need, gpa)) [[likely]] {
                const uint64_t offset = gpa.value - last_.gpa;
                if (offset < last_.bytes && bytes <= last_.bytes - offset) [[likely]] {
                    ++space_->asked_;
                    return last_.vva + offset;
                }
            }
            std::byte* const at = space_->find_afar(addr, bytes, need);
            *this = Finder(*space_);
            return at;
        }

      private:
        IovaSpace* space_;
        xlate::Nearby near_;
        Region last_;
    };

    /// Addresses asked for since this was last called.
    uint64_t take_asked() noexcept { return std::exchange(asked_, 0); }

  private:
    /// Finder::find() of any, and remember the region.
    [[gnu::noinline]] std::byte* find_afar(uint64_t addr, uint32_t bytes, Access need) noexcept {
        ++asked_;
        const xlate::Translation t = reader_.translate({addr}, bytes, need);
        if (t.bytes() != bytes || memory_ == nullptr) [[unlikely]]
            return nullptr;
        const virtq::MemoryRegion* const region = memory_->region_of(t.gpa());
        if (region == nullptr) [[unlikely]]
            return nullptr;
        last_ = {region->gpa.value, region->bytes, region->vva};
        const uint64_t offset = t.gpa().value - last_.gpa;
        return bytes <= last_.bytes - offset ? last_.vva + offset : nullptr;
    }
    void fail(uint64_t addr, Access need, xlate::FaultReason why) noexcept {
        if (report_) reader_.report({addr}, need, why);
    }

    xlate::Reader& reader_;
    const virtq::MemoryMap* memory_ = nullptr;
    Region last_;  // where a buffer was found
    const virtq::DirtyLog* log_ = nullptr;
    uint64_t asked_ = 0;
    bool report_ = true;
};
static_assert(virtq::AddressSpace<IovaSpace>);

}  // namespace viommu::net
