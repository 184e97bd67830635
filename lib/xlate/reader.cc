// SPDX-License-Identifier: BSD-3-Clause
#include "reader.hh"

#include <utility>

namespace viommu::xlate {

namespace {
constexpr unsigned kMoved = ~0u;
}

Result<Reader> Reader::create(table::Table& table, FaultQueue& faults, EndpointId endpoint) {
    const table::EndpointSlot* slot = table.endpoint(endpoint);
    if (slot == nullptr)
        return fail("endpoint {:#x} is not behind this IOMMU: list it in the guest's endpoints",
                    endpoint);
    const auto reader_slot = table.readers().take_slot();
    if (!reader_slot) return tl::unexpected(reader_slot.error());
    return Reader(table, faults, endpoint, slot, *reader_slot);
}

Reader::Reader(table::Table& table, FaultQueue& faults, EndpointId id,
               const table::EndpointSlot* endpoint, unsigned slot)
    : table_(&table),
      faults_(&faults),
      endpoint_(endpoint),
      view_(table.arena().view()),
      slot_(slot),
      id_(id) {}

Reader::Reader(Reader&& other) noexcept
    : table_(other.table_),
      faults_(other.faults_),
      endpoint_(other.endpoint_),
      view_(other.view_),
      slot_(std::exchange(other.slot_, kMoved)),
      id_(other.id_) {
    lost_faults_.add(other.lost_faults_.was());
}

Reader::~Reader() {
    if (slot_ != kMoved) table_->readers().give_back(slot_);
}

Translation Reader::extend(Iova iova, uint64_t bytes, Access need, Gpa gpa,
                           uint64_t have) noexcept {
    while (have < bytes) {
        const uint64_t next = iova.value + have;
        if (next < iova.value) break;  // past 2^64-1
        unsigned size_lg2;
        const uint64_t e = find(next, size_lg2);
        if (e == 0 || !allows(table::entry::rights(e), need)) break;
        if (table::entry::address(e) != gpa.value + have) break;
        // `next` is the first address of its leaf: the leaf before ended there.
        have += uint64_t{1} << size_lg2;
    }
    return Translation::to(gpa, std::min(have, bytes));
}

}  // namespace viommu::xlate
