// SPDX-License-Identifier: BSD-3-Clause
#include "walker.hh"

namespace viommu::xlate {

using namespace table;

Walker::Halfway Walker::start(uint64_t iova) noexcept {
    if (iova > view_.input_last) return {0, 0};
    approach(iova);
    Halfway half;
    if (start_near(iova, half)) return half;
    // Another granule, or a leaf (or nothing) above level 2.
    const Shape shape{view_.granule_lg2, view_.levels};
    uint64_t entry = root_ | entry::kTable;
    for (unsigned level = view_.levels; level-- > 2 && entry::is_table(entry);)
        entry = load(view_.base + entry::node(entry) +
                     shape.index(iova, level) * sizeof(AtomicWord));
    if (!entry::is_table(entry)) return {entry, 0};
    return descend(entry, iova, shape.granule_lg2);
}

}  // namespace viommu::xlate
