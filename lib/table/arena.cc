// SPDX-License-Identifier: BSD-3-Clause
#include "arena.hh"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace viommu::table {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kHugepage = uint64_t{2} << 20;
/// A root, and a path of nodes below it: less cannot map anything.
constexpr uint64_t kMinNodes = 16;

constexpr uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

unsigned levels_for(uint64_t input_last, unsigned granule_lg2) {
    const unsigned bits = unsigned(std::bit_width(input_last));
    // Readers begin their walks at a node of level 2; a tree has one even where it needs none.
    if (bits <= granule_lg2 + kMinLevels * kNodeBits) return kMinLevels;
    return (bits - granule_lg2 + kNodeBits - 1) / kNodeBits;
}

}  // namespace

Result<ArenaLayout> lay_out(const Geometry& g) {
    if (g.granule_lg2 < kMinGranuleLg2 || g.granule_lg2 > 30)
        return fail("granule 2^{}: the smallest page must be between 4 KiB (2^{}) and 1 GiB (2^30)",
                    g.granule_lg2, kMinGranuleLg2);
    if (g.max_endpoints == 0 || g.max_endpoints > (1u << 20))
        return fail("max_endpoints {}: must be between 1 and {}", g.max_endpoints, 1u << 20);
    if (g.max_domains == 0 || g.max_domains > (1u << 20))
        return fail("max_domains {}: must be between 1 and {}", g.max_domains, 1u << 20);
    if (g.max_regions > (1u << 20))
        return fail("max_regions {}: must be at most {}", g.max_regions, 1u << 20);
    ArenaLayout h{};
    h.magic = kArenaMagic;
    h.version = kArenaVersion;
    h.header_bytes = sizeof(ArenaHeader);
    h.arena_bytes = g.arena_bytes / kPage * kPage;
    h.input_first = g.input.first.value;
    h.input_last = g.input.last.value;
    h.granule_lg2 = g.granule_lg2;
    h.levels = levels_for(g.input.last.value, g.granule_lg2);
    h.max_endpoints = g.max_endpoints;
    // One more than the quota: moving the last endpoint of a domain creates the new domain before
    // the old one goes.
    h.max_domains = g.max_domains + 1;
    h.endpoints_offset = sizeof(ArenaHeader);
    h.domains_offset = h.endpoints_offset + uint64_t{h.max_endpoints} * sizeof(EndpointSlot);
    h.max_regions = g.max_regions;
    h.regions_offset = h.domains_offset + uint64_t{h.max_domains} * sizeof(DomainSlot);
    h.nodes_offset = round_up(h.regions_offset + h.max_regions * sizeof(RegionSlot), kPage);
    const uint64_t least = h.nodes_offset + kMinNodes * kNodeBytes;
    if (h.arena_bytes < least)
        return fail("arena of {} bytes: {} endpoints and {} domains need at least {} bytes",
                    g.arena_bytes, g.max_endpoints, g.max_domains, least);
    h.max_nodes = (h.arena_bytes - h.nodes_offset) / kNodeBytes;
    return h;
}

const EndpointSlot* View::endpoint(EndpointId id) const noexcept {
    for (const EndpointSlot* e = endpoints; e != endpoints + max_endpoints; ++e) {
        if (e->route.load(std::memory_order_acquire) == route::kAbsent) continue;  // R2 pairs W2
        if (e->id.load(std::memory_order_relaxed) == id) return e;
    }
    return nullptr;
}

View view_of(const std::byte* base, const ArenaLayout& h) noexcept {
    return {.base = base,
            .header = reinterpret_cast<const ArenaHeader*>(base),
            .granule_lg2 = h.granule_lg2,
            .levels = h.levels,
            .input_last = h.input_last,
            .regions = reinterpret_cast<const RegionSlot*>(base + h.regions_offset),
            .endpoints = reinterpret_cast<const EndpointSlot*>(base + h.endpoints_offset),
            .max_endpoints = h.max_endpoints};
}

Result<Arena> Arena::create(const Geometry& geometry) {
    const auto layout = lay_out(geometry);
    if (!layout) return tl::unexpected(layout.error());
    if (geometry.hugepages == Hugepages::kNever) return create(geometry, false);
    if (geometry.hugepages == Hugepages::kAuto && layout->arena_bytes < kHugepage)
        return create(geometry, false);
    Geometry rounded = geometry;
    rounded.arena_bytes = round_up(geometry.arena_bytes, kHugepage);
    auto arena = create(rounded, true);
    if (arena || geometry.hugepages == Hugepages::kAlways) return arena;
    return create(geometry, false);
}

Result<Arena> Arena::create(const Geometry& geometry, bool huge) {
    const auto layout = lay_out(geometry);
    if (!layout) return tl::unexpected(layout.error());
    const uint64_t bytes = layout->arena_bytes;
    const auto failed = [&](int why) {
        if (huge)
            return fail("arena of {} bytes: {} hugepages of 2 MiB cannot be had: {}; raise the sysctl "
                        "vm.nr_hugepages, or do with normal pages (hugepages = \"auto\")",
                        bytes, bytes / kHugepage, std::strerror(why));
        return fail("arena of {} bytes: {}", bytes, std::strerror(why));
    };

    const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    const int fd = memfd_create("viommu-arena", huge ? flags | MFD_HUGETLB | MFD_HUGE_2MB : flags);
    if (fd < 0) return failed(errno);
    // The size can never change again, so no reader can meet SIGBUS.
    void* base = MAP_FAILED;
    if (ftruncate(fd, off_t(bytes)) == 0)
        base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    // Nor can anyone write it but through this mapping. That a reader gets a read-only descriptor
    // would not be enough: it could open /proc/self/fd/N again, for writing.
    if (base == MAP_FAILED || fcntl(fd, F_ADD_SEALS,
                                    F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE |
                                        F_SEAL_SEAL) != 0) {
        const int why = errno;
        if (base != MAP_FAILED) munmap(base, bytes);
        close(fd);
        return failed(why);
    }
    // Only a wish: whether the system makes large pages of shared memory is its administrator's.
    if (!huge && geometry.hugepages != Hugepages::kNever) (void)madvise(base, bytes, MADV_HUGEPAGE);

    // The file is zero: every slot absent, every entry empty. Only the header has to be written.
    static_cast<ArenaLayout&>(*new (base) ArenaHeader{}) = *layout;
    return Arena(fd, static_cast<std::byte*>(base), bytes,
                 huge ? kHugepage : uint64_t(sysconf(_SC_PAGESIZE)));
}

Arena::Arena(Arena&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      base_(std::exchange(other.base_, nullptr)),
      bytes_(other.bytes_),
      page_bytes_(other.page_bytes_) {}

Arena::~Arena() {
    if (base_ != nullptr) munmap(base_, bytes_);
    if (fd_ >= 0) close(fd_);
}

EndpointSlot* Arena::endpoints() noexcept {
    return reinterpret_cast<EndpointSlot*>(base_ + header().endpoints_offset);
}

DomainSlot* Arena::domains() noexcept {
    return reinterpret_cast<DomainSlot*>(base_ + header().domains_offset);
}

RegionSlot* Arena::regions() noexcept {
    return reinterpret_cast<RegionSlot*>(base_ + header().regions_offset);
}

}  // namespace viommu::table
