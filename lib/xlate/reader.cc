// SPDX-License-Identifier: BSD-3-Clause
#include "reader.hh"

#include <cassert>
#include <utility>

namespace viommu::xlate {

Result<Reader> Reader::create(const table::View& view, table::Section section, FaultSink& faults,
                              EndpointId endpoint) {
    const table::EndpointSlot* slot = view.endpoint(endpoint);
    if (slot == nullptr)
        return fail("endpoint {:#x} is not behind this IOMMU: list it in the guest's endpoints",
                    endpoint);
    return Reader(view, std::move(section), faults, endpoint, slot);
}

Reader::Reader(const table::View& view, table::Section section, FaultSink& faults, EndpointId id,
               const table::EndpointSlot* endpoint)
    : section_(std::move(section)),
      endpoint_(endpoint),
      view_(view),
      faults_(&faults),
      id_(id) {}

Reader::Reader(Reader&& other) noexcept
    : section_(std::move(other.section_)),
      endpoint_(other.endpoint_),
      view_(other.view_),
      faults_(other.faults_),
      id_(other.id_) {
    lost_faults_.add(other.lost_faults_.was());
}

Translation Reader::extend(Iova iova, uint64_t bytes, Access need, Gpa gpa, uint64_t have,
                           Access rights) noexcept {
    while (have < bytes) {
        const uint64_t next = iova.value + have;
        if (next < iova.value) break;  // past 2^64-1
        unsigned size_lg2;
        const uint64_t e = find(next, size_lg2);
        if (e == 0 || !allows(table::entry::rights(e), need)) break;
        if (table::entry::address(e) != gpa.value + have) break;
        if ((table::entry::rights(e) & Access::kMmio) != (rights & Access::kMmio)) break;
        rights = rights & table::entry::rights(e);
        // `next` is the first address of its leaf: the leaf before ended there.
        have += uint64_t{1} << size_lg2;
    }
    return Translation::to(gpa, std::min(have, bytes), rights);
}

unsigned Reader::translate_burst(std::span<const Lookup> in, std::span<Translation> out,
                                 Access need) noexcept {
    assert(out.size() >= in.size());
    unsigned faulted = 0;
    for (size_t i = 0; i < in.size(); ++i) {
        out[i] = translate(in[i].iova, in[i].bytes, need);
        faulted += !out[i];
    }
    return faulted;
}

/// The identity, up to the next region that faults even in bypass mode.
Translation Reader::bypassed(Iova iova, uint64_t bytes) const noexcept {
    const uint64_t to_end = ~iova.value;  // bytes up to 2^64-1, less one
    if (bytes > to_end) bytes = to_end + 1;
    const table::RegionSlot* r = view_.regions + endpoint_->first_region;
    for (const table::RegionSlot* end = r + endpoint_->regions; r != end; ++r) {
        if (r->faults_in_bypass == 0 || r->last < iova.value) continue;
        if (r->first <= iova.value) return Translation::faulted(FaultReason::kMapping);
        bytes = std::min(bytes, r->first - iova.value);
    }
    return Translation::to({iova.value}, bytes);
}

std::optional<Mapping> Reader::next_mapping(Iova from) const noexcept {
    using namespace table;
    const Shape shape{view_.granule_lg2, view_.levels};
    const uint64_t end = std::min(view_.input_last, shape.tree_last());
    if (route::kind(route_) != route::kTree || from.value > end) return std::nullopt;
    const auto node_at = [this](uint64_t offset) { return view_.node(offset); };
    const auto at_or_above = [&](uint64_t iova) {
        return first_leaf(node_at, shape, route::root(route_), shape.levels - 1, iova, end);
    };
    auto leaf = at_or_above(from.value);
    if (!leaf) return std::nullopt;
    // Back to where the mapping begins: its leaves stand side by side.
    while ((leaf->entry & entry::kFirst) == 0 && leaf->first != 0) {
        const auto before = at_or_above(leaf->first - 1);
        if (!before || before->last != leaf->first - 1) break;
        leaf = before;
    }
    Mapping mapping{{{leaf->first}, {leaf->last}},
                    {entry::address(leaf->entry)},
                    entry::rights(leaf->entry)};
    while ((leaf->entry & entry::kLast) == 0 && leaf->last < end) {
        leaf = at_or_above(leaf->last + 1);
        if (!leaf || leaf->first != mapping.range.last.value + 1 ||
            (leaf->entry & entry::kFirst) != 0)
            break;
        mapping.range.last.value = leaf->last;
    }
    return mapping;
}

}  // namespace viommu::xlate
