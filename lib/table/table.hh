// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "arena.hh"
#include "readers.hh"
#include "viommu_base.hh"

namespace viommu::table {

/// IOVAs that an endpoint must not map.
struct Reserved {
    IovaRange range;
    bool faults_in_bypass;  ///< not even an endpoint in bypass mode may access it
};

/// What is limited. A request beyond is answered kNoMem.
enum class Quota : uint8_t { kDomains, kMappings, kArena };
inline constexpr size_t kQuotas = 3;

/// The writer of one guest's table.
///
/// Threads: one thread writes (create, destroy and hand over on a control thread while that one
/// does not run). Readers run at any time.
/// Every operation checks everything first and publishes then: on an error nothing has changed.
/// detach(), unmap(), attach() of an attached endpoint, reset() and set_bypass() take something
/// away from readers: the caller must not report them done before
///
///     auto token = table.start_grace();          // once for any number of operations
///     ... table.grace_over(token) ...            // poll; never blocks
class Table {
  public:
    static Result<std::unique_ptr<Table>> create(const Geometry& geometry);
    ~Table();
    Table(const Table&) = delete;
    Table& operator=(const Table&) = delete;

    // --- endpoints -------------------------------------------------------------------------------

    /// Make an endpoint known; attached to nothing. Nothing can be mapped over `reserved` in a
    /// domain that the endpoint is attached to. Errors: known already, or no slot left.
    Result<void> add_endpoint(EndpointId endpoint, std::span<const Reserved> reserved = {});
    bool has_endpoint(EndpointId endpoint) const;

    /// Whether endpoints that are attached to nothing get the identity or faults.
    void set_bypass(bool bypass) noexcept;
    bool bypass() const noexcept { return bypass_; }

    // --- requests --------------------------------------------------------------------------------

    /// Attach `endpoint` to `domain`, creating the domain; an endpoint attached elsewhere is moved
    /// by one store, so that readers see the old domain or the new one and nothing between.
    ///
    /// Spec:   5.13.6.3 ATTACH request
    /// Errors: kNoEnt endpoint; kInval `bypass` differs from the domain's kind; kUnsupp something is
    ///         mapped where the endpoint has a reserved region; kNoMem quota, arena
    Status attach(EndpointId endpoint, DomainId domain, bool bypass);

    /// Detach `endpoint` from `domain`. A domain without endpoints ceases to exist.
    ///
    /// Spec:   5.13.6.4 DETACH request
    /// Errors: kNoEnt endpoint; kInval not attached to that domain
    Status detach(EndpointId endpoint, DomainId domain);

    /// Map `range` of `domain` to guest memory at `gpa`.
    ///
    /// Spec:   5.13.6.5 MAP request
    /// Units:  bytes; inclusive; granule-aligned
    /// Errors: kRange misaligned, outside the input range or GPA wraps; kInval overlap with a
    ///         mapping or a reserved region of an endpoint of the domain, or bypass domain; kNoEnt
    ///         domain; kNoMem quota or arena
    Status map(DomainId domain, IovaRange range, Gpa gpa, Access rights);

    /// Remove every mapping that lies in `range`.
    ///
    /// Spec:   5.13.6.6 UNMAP request
    /// Errors: kRange a mapping lies in it only partly; kInval bypass domain; kNoEnt domain
    Status unmap(DomainId domain, IovaRange range);

    /// What the last kNoMem was about.
    Quota exhausted() const noexcept { return exhausted_; }

    /// Detach everything and drop all domains (device reset). The bypass setting stays.
    void reset();

    // --- waiting for readers ---------------------------------------------------------------------

    /// Something was taken from readers since the last start_grace(): answers must wait.
    bool dirty() const noexcept;
    Readers::Token start_grace() noexcept;
    /// Also frees what was waiting for `token`.
    bool grace_over(Readers::Token token) noexcept;

    // --- for readers -----------------------------------------------------------------------------

    Readers& readers() noexcept { return readers_; }
    const Arena& arena() const noexcept { return arena_; }
    /// Null when the endpoint does not exist. Stays valid as long as the table does.
    const EndpointSlot* endpoint(EndpointId endpoint) const noexcept;

    struct Usage {
        uint32_t endpoints, domains;
        uint64_t mappings;
        uint64_t nodes_used;     ///< linked or waiting for readers
        uint64_t nodes_free;
        uint64_t trees_waiting;  ///< unlinked subtrees that readers may still be in
    };
    Usage usage() const noexcept;

    /// Re-derive every invariant from the arena; an empty string, or what is wrong and where.
    std::string self_check() const;

  private:
    Table(Arena arena, const Geometry& geometry);

    struct Impl;
    struct RegionSet;

    std::vector<RegionSet>& region_sets(const DomainSlot& domain) noexcept;
    RegionSet* region_set(const DomainSlot& domain, const EndpointSlot& endpoint) noexcept;
    Status refuse(Quota quota) noexcept;
    Result<uint32_t> intern(std::span<const Reserved> reserved);
    void join(DomainSlot& domain, const EndpointSlot& endpoint);
    void part(DomainSlot& domain, const EndpointSlot& endpoint);
    bool compatible(const DomainSlot& domain, const EndpointSlot& endpoint) noexcept;
    bool reserved(const DomainSlot& domain, IovaRange range) noexcept;

    uint64_t unattached_route() const noexcept;
    void set_route(EndpointSlot& endpoint, uint64_t route) noexcept;
    DomainSlot* domain(DomainId id) noexcept;
    uint32_t create_domain(DomainId id, bool bypass);
    void release_domain(uint32_t slot, const EndpointSlot& endpoint);

    Arena arena_;
    Readers readers_;
    Geometry geometry_;
    bool bypass_ = false;
    Quota exhausted_ = Quota::kArena;
    std::unique_ptr<Impl> impl_;
};

}  // namespace viommu::table
