// SPDX-License-Identifier: BSD-3-Clause
#include "mapped_arena.hh"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace viommu::table {
namespace {

/// The geometry that lay_out() makes `h` of, if any.
Geometry geometry_of(const ArenaLayout& h) {
    return {.granule_lg2 = h.granule_lg2,
            .input = {{h.input_first}, {h.input_last}},
            .max_endpoints = h.max_endpoints,
            .max_regions = uint32_t(h.max_regions),
            .max_domains = h.max_domains - 1,
            .arena_bytes = h.arena_bytes};
}

Result<void> check(const ArenaLayout& h, uint64_t file_bytes) {
    if (h.magic != kArenaMagic)
        return fail("this is not an arena: it begins with {:#x}, not {:#x}", h.magic, kArenaMagic);
    if (h.version != kArenaVersion)
        return fail(
            "the arena has version {}, and this program reads version {}: use programs of "
            "one release",
            h.version, kArenaVersion);
    if (h.arena_bytes != file_bytes)
        return fail("the arena says it has {} bytes, but its file has {}", h.arena_bytes,
                    file_bytes);
    if (h.input_first > h.input_last)
        return fail("the arena's input range is reversed: {:#x} to {:#x}", h.input_first,
                    h.input_last);
    const auto computed = lay_out(geometry_of(h));
    if (!computed) return fail("the arena's header is damaged: {}", computed.error().message);
    if (h != *computed)
        return fail("the arena's header is damaged: its offsets and sizes do not fit its geometry");
    return {};
}

Result<uint64_t> size_of(int fd) {
    struct stat file {};
    if (fstat(fd, &file) != 0) return fail("the arena's file: {}", std::strerror(errno));
    if (uint64_t(file.st_size) < sizeof(ArenaHeader))
        return fail("this is not an arena: the file has {} bytes, and a header alone takes {}",
                    file.st_size, sizeof(ArenaHeader));
    const int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
        return fail("the arena's file is not sealed: it could shrink while it is read");
    return uint64_t(file.st_size);
}

}  // namespace

Result<MappedArena> MappedArena::open(int fd) {
    const auto bytes = size_of(fd);
    if (!bytes) return tl::unexpected(bytes.error());
    void* mapped = mmap(nullptr, *bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) return fail("arena of {} bytes: {}", *bytes, std::strerror(errno));
    const auto* base = static_cast<const std::byte*>(mapped);

    // What was checked is what is used: a copy.
    const ArenaLayout layout = *reinterpret_cast<const ArenaHeader*>(base);
    auto ok = check(layout, *bytes);
    if (ok && madvise(mapped, *bytes, MADV_DONTFORK) != 0)
        ok = fail("arena of {} bytes: {}", *bytes, std::strerror(errno));
    if (!ok) {
        munmap(mapped, *bytes);
        return tl::unexpected(ok.error());
    }
    return MappedArena(static_cast<std::byte*>(mapped), *bytes, view_of(base, layout));
}

MappedArena::MappedArena(MappedArena&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), bytes_(other.bytes_), view_(other.view_) {}

MappedArena::~MappedArena() {
    if (base_ != nullptr) munmap(base_, bytes_);
}

}  // namespace viommu::table
