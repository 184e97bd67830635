// SPDX-License-Identifier: BSD-3-Clause
#include "reader.hh"

#include <cassert>
#include <memory>
#include <utility>

namespace viommu::xlate {

namespace {
/// Walks that are under way together. More than a core can have misses outstanding.
constexpr size_t kBurst = 32;
}  // namespace

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

/// A Section cannot be assigned: its slot is given back to one table, and another taken.
void Reader::become(Reader other) noexcept {
    std::destroy_at(&section_);
    std::construct_at(&section_, std::move(other.section_));
    endpoint_ = other.endpoint_;
    view_ = other.view_;
    faults_ = other.faults_;
    id_ = other.id_;
    walker_ = Walker(view_);
    identity_bytes_ = 0;
}

Translation Reader::translate_afar(Iova iova, uint64_t bytes, Access need) noexcept {
    if (table::route::kind(route_) == table::route::kTree)
        return answer(iova, bytes, need, walker_.find(iova.value));
    if (table::route::kind(route_) == table::route::kBypass) return bypassed(iova, bytes);
    return Translation::faulted(FaultReason::kDomain);
}

Translation Reader::extend(Iova iova, uint64_t bytes, Access need, uint64_t entry) noexcept {
    using namespace table;
    const uint64_t shift = entry::shift(entry);
    const Gpa gpa = entry::gpa(entry, iova.value);
    Access rights = entry::rights(entry);
    uint64_t have = (iova.value | ((uint64_t{1} << entry::size_lg2(entry)) - 1)) - iova.value + 1;
    while (have < bytes) {
        const uint64_t next = iova.value + have;
        if (next < iova.value) break;  // past 2^64-1
        if (!walker_.find_near(next, entry)) entry = walker_.find(next);
        if (entry == 0 || !allows(entry::rights(entry), need)) break;
        if (entry::shift(entry) != shift) break;
        if ((entry::rights(entry) & Access::kMmio) != (rights & Access::kMmio)) break;
        rights = rights & entry::rights(entry);
        // `next` is the first address of its leaf: the leaf before ended there.
        have += uint64_t{1} << entry::size_lg2(entry);
    }
    return Translation::to(gpa, std::min(have, bytes), rights);
}

unsigned Reader::translate_burst(std::span<const Lookup> in, std::span<Translation> out,
                                 Access need) noexcept {
    assert(out.size() >= in.size());
    unsigned faulted = 0;
    if (table::route::kind(route_) != table::route::kTree) {
        for (size_t i = 0; i < in.size(); ++i) {
            out[i] = translate_afar(in[i].iova, in[i].bytes, need);
            faulted += !out[i];
        }
        return faulted;
    }
    while (!in.empty()) {
        const size_t n = std::min(in.size(), kBurst);
        // First all walks down to level 1, then the last word of each: these are what misses the
        // caches, and by then all of them are on their way.
        Walker::Halfway half[kBurst];
        for (size_t i = 0; i < n; ++i) {
            const uint64_t iova = in[i].iova.value;
            if (!walker_.start_near(iova, half[i])) [[unlikely]] {
                walker_.approach(iova);
                if (!walker_.start_near(iova, half[i])) half[i] = walker_.start(iova);
            }
            walker_.prefetch(half[i]);
        }
        for (size_t i = 0; i < n; ++i) {
            out[i] = answer(in[i].iova, in[i].bytes, need, walker_.finish(half[i]));
            faulted += !out[i];
        }
        in = in.subspan(n);
        out = out.subspan(n);
    }
    return faulted;
}

/// The identity, up to the next region that faults even in bypass mode.
Translation Reader::bypassed(Iova iova, uint64_t bytes) noexcept {
    uint64_t first = 0, last = ~uint64_t{0};
    const table::RegionSlot* r = view_.regions + endpoint_->first_region;
    for (const table::RegionSlot* end = r + endpoint_->regions; r != end; ++r) {
        if (r->faults_in_bypass == 0) continue;
        if (r->last < iova.value)
            first = std::max(first, r->last + 1);
        else if (r->first > iova.value)
            last = std::min(last, r->first - 1);
        else
            return Translation::faulted(FaultReason::kMapping);
    }
    identity_first_ = first;
    identity_bytes_ = last - first;  // the last one left out, or there might be 2^64
    const uint64_t to_end = last - iova.value;  // bytes, less one
    return Translation::to({iova.value}, bytes > to_end ? to_end + 1 : bytes);
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
                    entry::gpa(leaf->entry, leaf->first),
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
