// SPDX-License-Identifier: BSD-3-Clause
#include "table.hh"

#include <algorithm>
#include <utility>

#include "impl.hh"

namespace viommu::table {

namespace {

template <class T>
T load(const Atomic<T>& word) {
    return word.load(std::memory_order_relaxed);
}
template <class T, class V>
void store(Atomic<T>& word, V value) {
    word.store(T(value), std::memory_order_relaxed);
}

template <class Map, class Key>
const uint32_t* find(const Map& map, Key key) {
    const auto it = map.find(key);
    return it == map.end() ? nullptr : &it->second;
}

}  // namespace

Result<std::unique_ptr<Table>> Table::create(const Geometry& geometry) {
    auto arena = Arena::create(geometry);
    if (!arena) return tl::unexpected(arena.error());
    return std::unique_ptr<Table>(new Table(std::move(*arena), geometry));
}

Table::Table(Arena arena, const Geometry& geometry)
    : arena_(std::move(arena)),
      readers_(geometry.max_readers, arena_.header().reader_token),
      geometry_(geometry),
      impl_(std::make_unique<Impl>(arena_)) {}

Table::~Table() = default;

// --- endpoints -----------------------------------------------------------------------------------

/// Where `reserved` lies in the region slots; endpoints often have the same.
Result<uint32_t> Table::intern(std::span<const Reserved> reserved) {
    RegionSlot* slots = arena_.regions();
    const auto same = [](const Reserved& r, const RegionSlot& s) {
        return r.range == IovaRange{{s.first}, {s.last}} &&
               uint64_t{r.faults_in_bypass} == s.faults_in_bypass;
    };
    const uint64_t n = reserved.size();
    for (uint64_t at = 0; at + n <= impl_->regions; ++at)
        if (std::equal(reserved.begin(), reserved.end(), slots + at, same)) return uint32_t(at);
    const uint64_t at = impl_->regions;
    if (at + n > arena_.header().max_regions)
        return fail("{} reserved regions: the table has room for {}", at + n,
                    arena_.header().max_regions);
    for (const Reserved& r : reserved)
        slots[impl_->regions++] = {r.range.first.value, r.range.last.value, r.faults_in_bypass};
    return uint32_t(at);
}

Result<void> Table::add_endpoint(EndpointId id, std::span<const Reserved> reserved) {
    if (has_endpoint(id)) return fail("endpoint {:#x} is there already", id);
    const auto slot = uint32_t(impl_->endpoint_slots.size());
    if (slot == geometry_.max_endpoints)
        return fail("endpoint {:#x}: all {} endpoint slots are taken", id, slot);
    const auto first_region = intern(reserved);
    if (!first_region) return tl::unexpected(first_region.error());
    impl_->endpoint_slots.emplace(id, slot);
    EndpointSlot& e = arena_.endpoints()[slot];
    e.first_region = *first_region;
    e.regions = uint32_t(reserved.size());
    store(e.id, id);
    e.route.store(unattached_route(), std::memory_order_release);  // W2 pairs R2
    return {};
}

bool Table::has_endpoint(EndpointId id) const { return find(impl_->endpoint_slots, id) != nullptr; }

const EndpointSlot* Table::endpoint(EndpointId id) const noexcept {
    const uint32_t* slot = find(impl_->endpoint_slots, id);
    return slot == nullptr ? nullptr : const_cast<Arena&>(arena_).endpoints() + *slot;
}

uint64_t Table::unattached_route() const noexcept {
    return bypass_ ? route::kBypass : route::kBlocked;
}

void Table::set_bypass(bool bypass) noexcept {
    if (bypass == bypass_) return;
    bypass_ = bypass;
    for (const auto& [id, slot] : impl_->endpoint_slots) {
        EndpointSlot& e = arena_.endpoints()[slot];
        if (load(e.domain_slot) == 0) set_route(e, unattached_route());
    }
}

void Table::set_route(EndpointSlot& e, uint64_t route) noexcept {
    e.route.store(route, std::memory_order_release);  // W2 pairs R2
    impl_->dirty = true;
}

// --- domains -------------------------------------------------------------------------------------

DomainSlot* Table::domain(DomainId id) noexcept {
    const uint32_t* slot = find(impl_->domain_slots, id);
    return slot == nullptr ? nullptr : arena_.domains() + *slot;
}

uint32_t Table::create_domain(DomainId id, bool bypass) {
    const uint32_t slot = impl_->free_domains.back();
    impl_->free_domains.pop_back();
    impl_->domain_slots.emplace(id, slot);
    DomainSlot& d = arena_.domains()[slot];
    store(d.id, id);
    store(d.root, bypass ? 0 : impl_->nodes.take());
    store(d.endpoints, 0);
    store(d.mappings, 0);
    store(d.state, bypass ? DomainSlot::kBypass : DomainSlot::kTranslated);
    return slot;
}

/// `endpoint` has left. A domain without endpoints ceases to exist.
void Table::release_domain(uint32_t slot, const EndpointSlot& endpoint) {
    DomainSlot& d = arena_.domains()[slot];
    part(d, endpoint);
    if (load(d.endpoints) != 0) return;
    if (const uint64_t root = load(d.root)) impl_->nodes.retire(root);
    impl_->mappings -= load(d.mappings);
    store(d.state, DomainSlot::kFree);
    impl_->domain_slots.erase(load(d.id));
    impl_->free_domains.push_back(slot);
}

/// The different sets of regions that the domain's endpoints have.
std::vector<Table::RegionSet>& Table::region_sets(const DomainSlot& d) noexcept {
    return impl_->region_sets[size_t(&d - arena_.domains())];
}

/// That of `e` among them, or null.
Table::RegionSet* Table::region_set(const DomainSlot& d, const EndpointSlot& e) noexcept {
    for (auto& set : region_sets(d))
        if (set.first == e.first_region && set.count == e.regions) return &set;
    return nullptr;
}

void Table::join(DomainSlot& d, const EndpointSlot& e) {
    store(d.endpoints, load(d.endpoints) + 1);
    if (e.regions == 0) return;
    if (auto* set = region_set(d, e))
        ++set->endpoints;
    else
        region_sets(d).push_back({e.first_region, e.regions, 1});
}

void Table::part(DomainSlot& d, const EndpointSlot& e) {
    store(d.endpoints, load(d.endpoints) - 1);
    auto* set = region_set(d, e);
    if (set == nullptr || --set->endpoints != 0) return;
    auto& sets = region_sets(d);
    *set = sets.back();
    sets.pop_back();
}

/// Nothing is mapped where `e` must not map.
bool Table::compatible(const DomainSlot& d, const EndpointSlot& e) noexcept {
    const uint64_t root = load(d.root);
    if (root == 0 || load(d.mappings) == 0) return true;
    if (region_set(d, e) != nullptr) return true;
    const RegionSlot* r = arena_.regions() + e.first_region;
    return std::none_of(r, r + e.regions, [&](const RegionSlot& region) {
        return occupied(impl_->nodes, impl_->shape, root, {{region.first}, {region.last}});
    });
}

/// An endpoint of the domain must not map some of `range`.
bool Table::reserved(const DomainSlot& d, IovaRange range) noexcept {
    for (const auto& set : region_sets(d)) {
        const RegionSlot* r = arena_.regions() + set.first;
        for (const RegionSlot* end = r + set.count; r != end; ++r)
            if (range.overlaps({{r->first}, {r->last}})) return true;
    }
    return false;
}

// --- requests ------------------------------------------------------------------------------------

Status Table::refuse(Quota quota) noexcept {
    exhausted_ = quota;
    return Status::kNoMem;
}

Status Table::attach(EndpointId endpoint, DomainId id, bool bypass) {
    const uint32_t* endpoint_slot = find(impl_->endpoint_slots, endpoint);
    if (endpoint_slot == nullptr) return Status::kNoEnt;
    EndpointSlot& e = arena_.endpoints()[*endpoint_slot];
    const uint32_t old = load(e.domain_slot);  // plus one

    uint32_t slot;
    if (const uint32_t* existing = find(impl_->domain_slots, id)) {
        slot = *existing;
        if ((load(arena_.domains()[slot].state) == DomainSlot::kBypass) != bypass)
            return Status::kInval;
        if (old == slot + 1) return Status::kOk;
        if (!compatible(arena_.domains()[slot], e)) return Status::kUnsupp;
    } else {
        // As if the endpoint had been detached first: a domain that this ends does not count.
        const bool ends_old = old != 0 && load(arena_.domains()[old - 1].endpoints) == 1;
        if (impl_->domain_slots.size() - ends_old >= geometry_.max_domains)
            return refuse(Quota::kDomains);
        if (!bypass && impl_->nodes.available() == 0) return refuse(Quota::kArena);
        slot = create_domain(id, bypass);
    }
    DomainSlot& d = arena_.domains()[slot];
    join(d, e);
    store(e.domain_slot, slot + 1);
    set_route(e, bypass ? route::kBypass : load(d.root) | route::kTree);
    if (old != 0) release_domain(old - 1, e);
    return Status::kOk;
}

Status Table::detach(EndpointId endpoint, DomainId id) {
    const uint32_t* endpoint_slot = find(impl_->endpoint_slots, endpoint);
    if (endpoint_slot == nullptr) return Status::kNoEnt;
    EndpointSlot& e = arena_.endpoints()[*endpoint_slot];
    const uint32_t* slot = find(impl_->domain_slots, id);
    if (slot == nullptr || load(e.domain_slot) != *slot + 1) return Status::kInval;
    const uint32_t domain_slot = *slot;  // release_domain() erases what `slot` points to
    store(e.domain_slot, 0);
    set_route(e, unattached_route());
    release_domain(domain_slot, e);
    return Status::kOk;
}

Status Table::map(DomainId id, IovaRange range, Gpa gpa, Access rights) {
    DomainSlot* d = domain(id);
    if (d == nullptr) return Status::kNoEnt;
    if (load(d->state) == DomainSlot::kBypass) return Status::kInval;
    const uint64_t mask = (uint64_t{1} << geometry_.granule_lg2) - 1;
    if (((range.first.value | gpa.value | (range.last.value + 1)) & mask) != 0)
        return Status::kRange;
    if (!geometry_.input.contains(range)) return Status::kRange;
    if (gpa.value + range.extent() < gpa.value) return Status::kRange;
    if (reserved(*d, range)) return Status::kInval;

    const uint64_t root = load(d->root);
    const auto needed = nodes_needed(impl_->nodes, impl_->shape, root, range);
    if (!needed) return Status::kInval;
    if (impl_->mappings >= geometry_.max_mappings) return refuse(Quota::kMappings);
    if (*needed > impl_->nodes.available()) return refuse(Quota::kArena);
    publish(impl_->nodes, impl_->shape, root, range, gpa, rights);
    store(d->mappings, load(d->mappings) + 1);
    ++impl_->mappings;
    return Status::kOk;
}

Status Table::unmap(DomainId id, IovaRange range) {
    DomainSlot* d = domain(id);
    if (d == nullptr) return Status::kNoEnt;
    if (load(d->state) == DomainSlot::kBypass) return Status::kInval;
    const uint64_t root = load(d->root);
    Nodes& nodes = impl_->nodes;
    if (const auto leaf = find_leaf(nodes, impl_->shape, root, range.first.value))
        if (leaf->first != range.first.value || (leaf->entry & entry::kFirst) == 0)
            return Status::kRange;
    if (const auto leaf = find_leaf(nodes, impl_->shape, root, range.last.value))
        if (leaf->last != range.last.value || (leaf->entry & entry::kLast) == 0)
            return Status::kRange;

    if (const uint64_t removed = unpublish(nodes, impl_->shape, root, range)) {
        store(d->mappings, load(d->mappings) - removed);
        impl_->mappings -= removed;
        impl_->dirty = true;
    }
    return Status::kOk;
}

void Table::reset() {
    for (const auto& [id, slot] : impl_->endpoint_slots) {
        EndpointSlot& e = arena_.endpoints()[slot];
        const uint32_t old = load(e.domain_slot);
        if (old == 0) continue;
        store(e.domain_slot, 0);
        set_route(e, unattached_route());
        release_domain(old - 1, e);
    }
}

// --- waiting for readers -------------------------------------------------------------------------

bool Table::dirty() const noexcept { return impl_->dirty; }

Readers::Token Table::start_grace() noexcept {
    AtomicWord& generation = arena_.header().generation;
    generation.store(load(generation) + 1, std::memory_order_release);  // W3 pairs R3
    const Readers::Token token = readers_.start_grace();
    impl_->nodes.start_waiting(token);
    impl_->dirty = false;
    return token;
}

bool Table::grace_over(Readers::Token token) noexcept {
    if (!readers_.grace_over(token)) return false;
    impl_->nodes.grace_over(token);
    return true;
}

Table::Usage Table::usage() const noexcept {
    return {uint32_t(impl_->endpoint_slots.size()), uint32_t(impl_->domain_slots.size()),
            impl_->mappings, impl_->nodes.taken(), impl_->nodes.available(),
            impl_->nodes.waiting()};
}

}  // namespace viommu::table
