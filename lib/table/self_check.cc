// SPDX-License-Identifier: BSD-3-Clause
/// Table::self_check(): every invariant, derived again from the arena alone.
#include <vector>

#include "impl.hh"

namespace viommu::table {
namespace {

/// Walks one tree in address order and follows the marks.
struct Walk {
    Nodes& nodes;
    const Shape& shape;
    std::string wrong = {};
    uint64_t mappings = 0;
    uint64_t count = 0;  // nodes
    bool open = false;   // inside a mapping whose kLast has not come yet
    uint64_t next = 0;   // where an open mapping must go on
    uint64_t before = 0;  // the leaf before this one

    template <class... Args>
    void complain(fmt::format_string<Args...> f, Args&&... args) {
        if (wrong.empty()) wrong = fmt::format(f, std::forward<Args>(args)...);
    }

    void leaf(uint64_t e, uint64_t first, unsigned level) {
        const bool begins = (e & entry::kFirst) != 0;
        if (open && (begins || first != next))
            complain("mapping before {:#x} has no last leaf", first);
        if (!open && !begins) complain("leaf {:#x} belongs to no mapping", first);
        if (open && (entry::shift(e) != entry::shift(before) ||
                     entry::rights(e) != entry::rights(before)))
            complain("leaf {:#x} does not continue its mapping", first);
        if (entry::size_lg2(e) != shape.shift(level))
            complain("leaf {:#x} of level {} says it has 2^{} bytes", first, level,
                     entry::size_lg2(e));
        mappings += begins;
        open = (e & entry::kLast) == 0;
        next = first + (uint64_t{1} << shape.shift(level));
        before = e;
    }

    void node(uint64_t offset, unsigned level, uint64_t base, bool is_root) {
        const uint64_t mappings_before = mappings;
        const uint64_t nodes_before = count++;
        unsigned used = 0;
        for (unsigned i = 0; i < kNodeEntries; ++i) {
            const uint64_t e = nodes.at(offset)->entries[i].load(std::memory_order_relaxed);
            if (e == 0) continue;
            ++used;
            const uint64_t first = base + (uint64_t{i} << shape.shift(level));
            if (entry::is_leaf(e)) {
                leaf(e, first, level);
            } else if (level == 0) {
                complain("table entry {:#x} in a lowest node, at {:#x}", e, first);
            } else {
                node(entry::node(e), level - 1, first, false);
            }
        }
        const Book& book = nodes.book(offset);
        if (used != book.used || count - nodes_before != book.nodes ||
            mappings - mappings_before != book.mappings)
            complain("node {:#x} has {} entries, {} nodes, {} mappings; the book says {}, {}, {}",
                     offset, used, count - nodes_before, mappings - mappings_before, book.used,
                     book.nodes, book.mappings);
        if (used == 0 && !is_root) complain("empty node {:#x} is linked", offset);
    }
};

}  // namespace

std::string Table::self_check() const {
    Impl& impl = *impl_;
    Arena& arena = const_cast<Arena&>(arena_);
    uint64_t mappings = 0;
    uint64_t nodes = 0;
    struct Members {
        uint32_t attached = 0, reserving = 0;
    };
    std::vector<Members> members(arena.header().max_domains + 1);  // by domain slot, plus one
    for (const auto& [id, slot] : impl.endpoint_slots) {
        const EndpointSlot& e = arena.endpoints()[slot];
        Members& of_domain = members[e.domain_slot.load()];
        ++of_domain.attached;
        of_domain.reserving += e.regions != 0;
    }
    for (const auto& [id, index] : impl.domain_slots) {
        const uint32_t slot = index;
        const DomainSlot& d = arena.domains()[slot];
        const auto [attached, reserving] = members[slot + 1];
        if (d.id.load() != id || d.endpoints.load() == 0 || d.endpoints.load() != attached)
            return fmt::format("domain {}: slot {} says id {} with {} endpoints, {} are attached",
                               id, slot, d.id.load(), d.endpoints.load(), attached);
        uint64_t with_regions = 0;
        for (const auto& set : impl.region_sets[slot]) with_regions += set.endpoints;
        if (with_regions != reserving)
            return fmt::format("domain {}: {} endpoints have reserved regions, the book says {}", id,
                               reserving, with_regions);
        if (d.state.load() == DomainSlot::kBypass) continue;
        Walk walk{impl.nodes, impl.shape};
        walk.node(d.root.load(), impl.shape.levels - 1, 0, true);
        if (walk.open) walk.complain("the last mapping has no last leaf");
        if (walk.mappings != d.mappings.load())
            walk.complain("{} mappings found, {} counted", walk.mappings, d.mappings.load());
        if (!walk.wrong.empty()) return fmt::format("domain {}: {}", id, walk.wrong);
        mappings += walk.mappings;
        nodes += walk.count;
    }
    if (mappings != impl.mappings)
        return fmt::format("{} mappings found, {} counted", mappings, impl.mappings);
    nodes += impl.nodes.count_waiting();
    if (nodes != impl.nodes.taken())
        return fmt::format("{} nodes found, {} taken: {} leaked", nodes, impl.nodes.taken(),
                           int64_t(impl.nodes.taken() - nodes));
    return {};
}

}  // namespace viommu::table
