// SPDX-License-Identifier: BSD-3-Clause
#include "port_counters.hh"

#include <algorithm>

namespace viommu::app {

void PortCounters::count(std::string_view what, std::string_view name, uint16_t pair,
                         uint64_t value) {
    std::string full = fmt::format("{}.{}", what, name);
    if (pairs_ > 1 && value != 0) of_queues_.push_back({full, value, pair});
    const auto total = std::ranges::find(totals_, full, &Value::name);
    if (total == totals_.end())
        totals_.push_back({std::move(full), value});
    else
        total->value += value;
}

void PortCounters::print(Counters& out) const {
    for (const Value& v : totals_) out.add(prefix_, v.name, v.value);
    for (uint16_t pair = 0; pair < pairs_; pair++)
        for (const Value& v : of_queues_)
            if (v.pair == pair) out.add(fmt::format("{}.q{}", prefix_, pair), v.name, v.value);
}

}  // namespace viommu::app
