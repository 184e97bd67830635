// SPDX-License-Identifier: BSD-3-Clause
#include "wire.hh"

#include <algorithm>

namespace viommu::app {
namespace {

unsigned lcores_at(const Wire::End& end) {
    return unsigned(std::min<size_t>(end.lcores.size(), end.end.pairs()));
}

}  // namespace

Wire::Wire(const End& a, const End& b, Lcores& lcores)
    : a_to_b_(a.end, b.end, lcores_at(a)), b_to_a_(b.end, a.end, lcores_at(b)) {
    spread(a_to_b_, a.lcores, lcores);
    spread(b_to_a_, b.lcores, lcores);
}

void Wire::spread(Direction& direction, const std::vector<unsigned>& ids, Lcores& lcores) {
    for (uint16_t pair = 0; pair < direction.from().pairs(); pair++) {
        const unsigned id = ids[pair % ids.size()];
        auto [at, fresh] = by_lcore_.try_emplace(id, lcores.at(id));
        at->second.patch.add(direction, pair);
    }
}

void Wire::pause() {
    if (!running_) return;
    running_ = false;
    for (auto& [id, driven] : by_lcore_) driven.poller.remove(driven.patch);
}

void Wire::resume() {
    if (running_) return;
    running_ = true;
    for (auto& [id, driven] : by_lcore_) driven.poller.add(driven.patch);
}

}  // namespace viommu::app
