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

using AtomicWord = Atomic<uint64_t>;
static_assert(AtomicWord::is_always_lock_free && sizeof(AtomicWord) == 8);

/// A tree entry is one word.
///
///   0                  nothing is mapped here
///   kTable | offset    a Node of the level below, at `offset` in the arena
///   kLeaf  | frame     `frame` (GPA, granule aligned) is mapped here with the rights in bits 0-2;
///                      kFirst, kLast: the mapping begins, ends with this leaf
namespace entry {
inline constexpr uint64_t kRights = 0x7;  // enum class Access
inline constexpr uint64_t kLeaf = 1u << 3;
inline constexpr uint64_t kFirst = 1u << 4;
inline constexpr uint64_t kLast = 1u << 5;
inline constexpr uint64_t kTable = 1u << 6;
inline constexpr uint64_t kAddress = ~uint64_t{0xfff};

constexpr bool is_leaf(uint64_t e) { return (e & kLeaf) != 0; }
constexpr bool is_table(uint64_t e) { return (e & kTable) != 0; }
constexpr uint64_t address(uint64_t e) { return e & kAddress; }
constexpr Access rights(uint64_t e) { return Access(e & kRights); }
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
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;
    uint64_t arena_bytes;
    uint64_t input_first;
    uint64_t input_last;
    uint32_t granule_lg2;
    uint32_t levels;  ///< of the tree; level 0 is indexed by granule
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
