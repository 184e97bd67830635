// SPDX-License-Identifier: BSD-3-Clause
/// The arena as it lies in shared memory. Offsets instead of pointers: every process maps it where
/// it likes. All words that change after creation are atomics, written by the one writer.
///
///   0            ArenaHeader
///   endpoints    EndpointSlot[max_endpoints]
///   domains      DomainSlot[max_domains]
///   regions      RegionSlot[max_regions]
///   nodes        Node[max_nodes], 4 KiB each
#pragma once

#include <cstddef>
#include <cstdint>

#include "viommu_base.hh"

namespace viommu::table {

inline constexpr uint64_t kArenaMagic = 0x756d6d6f69767664;  // "dvviommu"
inline constexpr uint32_t kArenaVersion = 3;

inline constexpr unsigned kNodeBits = 9;
inline constexpr unsigned kNodeEntries = 1u << kNodeBits;
inline constexpr unsigned kNodeBytes = kNodeEntries * sizeof(uint64_t);
/// The smallest granule: an entry keeps its flags in the bits below it.
inline constexpr unsigned kMinGranuleLg2 = 12;

/// The fewest levels of a tree, and those of one for 64 bits.
inline constexpr unsigned kMinLevels = 3;
inline constexpr unsigned kMaxLevels = (64 - kMinGranuleLg2 + kNodeBits - 1) / kNodeBits;

using AtomicWord = Atomic<uint64_t>;
static_assert(AtomicWord::is_always_lock_free && sizeof(AtomicWord) == 8);

/// A tree entry is one word.
///
///   0                  nothing is mapped here
///   offset | kTable    a Node of the level below, at `offset` in the arena
///   shift | ...        a leaf. `shift` is GPA - IOVA, modulo 2^64: the same all over a mapping, so
///                      that leaves of a run are told by equal shifts, and a translation is one
///                      addition. Bits 0-5: log2 of the bytes that the leaf covers. Bits 9-11:
///                      the rights. kFirst, kLast: the mapping begins, ends with this leaf
namespace entry {
inline constexpr uint64_t kSizeLg2 = 0x3f;
inline constexpr uint64_t kTable = 1u << 6;
inline constexpr uint64_t kFirst = 1u << 7;
inline constexpr uint64_t kLast = 1u << 8;
inline constexpr unsigned kRightsShift = 9;
inline constexpr uint64_t kAddress = ~uint64_t{0xfff};

constexpr bool is_table(uint64_t e) { return (e & kTable) != 0; }
constexpr bool is_leaf(uint64_t e) { return e != 0 && !is_table(e); }
/// Of a table: where its node is.
constexpr uint64_t node(uint64_t e) { return e - kTable; }
/// Of leaves.
constexpr uint64_t shift(uint64_t e) { return e & kAddress; }
constexpr Gpa gpa(uint64_t e, uint64_t iova) { return {shift(e) + iova}; }
constexpr unsigned size_lg2(uint64_t e) { return unsigned(e & kSizeLg2); }
constexpr Access rights(uint64_t e) { return Access(e >> kRightsShift & 7); }
constexpr uint64_t leaf(Gpa gpa, uint64_t iova, unsigned size_lg2, Access rights) {
    return (gpa.value - iova) | uint64_t(rights) << kRightsShift | size_lg2;
}
}  // namespace entry

struct Node {
    AtomicWord entries[kNodeEntries];
};
static_assert(sizeof(Node) == kNodeBytes);

/// Where an endpoint's accesses go: one word, so that attaching is one store.
///
///   0                    the endpoint does not exist
///   kBlocked             attached to nothing: every access faults (R_DOMAIN)
///   kBypass              identity
///   kTree | offset       the root Node of its domain
namespace route {
inline constexpr uint64_t kKind = 0x3;
inline constexpr uint64_t kAbsent = 0;
inline constexpr uint64_t kBlocked = 1;
inline constexpr uint64_t kBypass = 2;
inline constexpr uint64_t kTree = 3;

constexpr uint64_t kind(uint64_t r) { return r & kKind; }
constexpr uint64_t root(uint64_t r) { return r & ~uint64_t{0xfff}; }
}  // namespace route

struct alignas(64) EndpointSlot {
    AtomicWord route;
    Atomic<uint32_t> id;
    Atomic<uint32_t> domain_slot;  ///< index of its DomainSlot plus one, or 0
    uint32_t first_region;           ///< its RegionSlots; constant once the route is not 0
    uint32_t regions;
};
static_assert(sizeof(EndpointSlot) == 64);

/// Only the writer reads these; they are in the arena so that a restarted writer finds them.
struct alignas(64) DomainSlot {
    enum State : uint32_t { kFree = 0, kTranslated = 1, kBypass = 2 };
    Atomic<uint32_t> state;
    Atomic<uint32_t> id;
    Atomic<uint64_t> root;  ///< offset of the root Node; 0 for a bypass domain
    Atomic<uint32_t> endpoints;  ///< attached to it
    Atomic<uint64_t> mappings;
};
static_assert(sizeof(DomainSlot) == 64);

/// A range of IOVAs that an endpoint must not map. Endpoints with the same ranges share slots.
struct RegionSlot {
    uint64_t first;
    uint64_t last;
    uint64_t faults_in_bypass;  ///< 1: not even an endpoint in bypass mode may access it
};

/// What an arena holds and where; constant.
struct ArenaLayout {
    /// 0. Readers that find no way down in a tree look here instead, so as not to branch.
    uint64_t nothing;
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;
    uint64_t arena_bytes;
    uint64_t input_first;
    uint64_t input_last;
    uint32_t granule_lg2;
    uint32_t levels;  ///< of the tree, 3 or more; level 0 is indexed by granule
    uint64_t endpoints_offset;
    uint64_t domains_offset;
    uint64_t regions_offset;
    uint64_t nodes_offset;
    uint32_t max_endpoints;
    uint32_t max_domains;
    uint64_t max_regions;
    uint64_t max_nodes;

    bool operator==(const ArenaLayout&) const = default;
};

struct alignas(4096) ArenaHeader : ArenaLayout {
    /// Counts the times that something was taken from readers (UNMAP, DETACH, re-ATTACH). While it
    /// stands still, what a reader translated earlier is still true.
    alignas(64) AtomicWord generation;

    /// Counts grace periods. Readers in other processes begin their sections with it (section.hh).
    alignas(64) AtomicWord reader_token;
};
static_assert(sizeof(ArenaHeader) == 4096);

}  // namespace viommu::table
