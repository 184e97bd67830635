// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <utility>

#include "viommu_virtq.hh"
#include "viommu_xlate.hh"

namespace viommu::net {

/// The address space of an endpoint: IOVA -> GPA by its Reader, GPA -> our memory by the memory map
/// of its connection. What resolve() returns is valid until the reader leaves its section.
class IovaSpace {
  public:
    explicit IovaSpace(xlate::Reader& reader) : reader_(reader) {}

    /// `memory` outlives its use here; null: nothing resolves.
    void set_memory(const virtq::MemoryMap* memory) noexcept { memory_ = memory; }
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

    /// resolve() of all of it in one piece, or null, which nobody is told of: whoever asks resolves
    /// it piece by piece then.
    std::byte* find(uint64_t addr, uint32_t bytes, Access need) noexcept {
        ++asked_;
        const xlate::Translation t = reader_.translate({addr}, bytes, need);
        if (t.bytes() != bytes || memory_ == nullptr) [[unlikely]]
            return nullptr;
        const auto found = memory_->at(t.gpa(), bytes);
        return found.size() == bytes ? found.data() : nullptr;
    }

    /// Addresses asked for since this was last called.
    uint64_t take_asked() noexcept { return std::exchange(asked_, 0); }

  private:
    void fail(uint64_t addr, Access need, xlate::FaultReason why) noexcept {
        if (report_) reader_.report({addr}, need, why);
    }

    xlate::Reader& reader_;
    const virtq::MemoryMap* memory_ = nullptr;
    const virtq::DirtyLog* log_ = nullptr;
    uint64_t asked_ = 0;
    bool report_ = true;
};
static_assert(virtq::AddressSpace<IovaSpace>);

}  // namespace viommu::net
