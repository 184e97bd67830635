// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "arena.hh"

namespace viommu::table {

/// Somebody else's arena, mapped read-only: what a reader in another process works on.
/// Threads: control. The mapping is not inherited by fork(): a child is not the reader that its
/// parent is known as.
class MappedArena {
  public:
    /// Map the arena behind `fd`, which stays the caller's and may be closed afterwards.
    ///
    /// The layout is computed again from the header's geometry, and every offset in the header must
    /// be the computed one: nothing is mapped or indexed by what a header claims.
    /// Errors: not an arena, or of another version; a header that contradicts itself or the file's
    ///         size; a file that may shrink under its readers.
    static Result<MappedArena> open(int fd);
    MappedArena(MappedArena&& other) noexcept;
    MappedArena& operator=(MappedArena&&) = delete;
    ~MappedArena();

    const View& view() const noexcept { return view_; }

  private:
    MappedArena(std::byte* base, uint64_t bytes, const View& view)
        : base_(base), bytes_(bytes), view_(view) {}
    std::byte* base_;
    uint64_t bytes_;
    View view_;
};

}  // namespace viommu::table
