// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <vector>

#include "memory.hh"

namespace viommu::guest {

/// The dirty log of a live migration: one bit per page of GPA space, from address 0 on, in a memfd
/// that backends share by SET_LOG_BASE. They set bits, we take them.
///
/// Source:  QEMU's docs/interop/vhost-user.rst, "Migration"
/// Threads: one, and the backends. A bit is taken by an atomic exchange with acquire; its partner
///          is the backend's atomic or, with release, after the write that it tells of.
class DirtyLog {
  public:
    /// For all of `memory`. `extra`: GPAs above it that may be logged too.
    static Result<DirtyLog> create(const Memory& memory, uint64_t extra = 0);
    DirtyLog(DirtyLog&& other) noexcept;
    DirtyLog& operator=(DirtyLog&&) = delete;
    ~DirtyLog();

    int fd() const { return fd_.get(); }
    uint64_t bytes() const { return bytes_; }
    uint64_t pages() const { return bytes_ * 8; }

    /// The pages that were written since the last time, lowest first; they are clean now.
    std::vector<Gpa> take();
    /// Whether the page of `gpa` is dirty; it stays so.
    bool is_dirty(Gpa gpa) const;

  private:
    DirtyLog() = default;

    Fd fd_;
    uint64_t* words_ = nullptr;
    uint64_t bytes_ = 0;
};

}  // namespace viommu::guest
