// SPDX-License-Identifier: BSD-3-Clause
#include "workload.hh"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace viommu::perf {

const char* to_string(Pages pages) {
    return pages == Pages::k4K ? "4K" : pages == Pages::k2M ? "2M" : "mixed";
}

const char* to_string(Order order) { return order == Order::kSequential ? "sequential" : "random"; }

std::string count_text(uint64_t count) {
    if (count >= 1 << 20 && count % (1 << 20) == 0) return fmt::format("{}M", count >> 20);
    if (count >= 1 << 10 && count % (1 << 10) == 0) return fmt::format("{}K", count >> 10);
    return fmt::format("{}", count);
}

double parse_count(const std::string& text) {
    const double unit = text.back() == 'M' ? 1 << 20 : text.back() == 'K' ? 1 << 10 : 1;
    return std::stod(text) * unit;
}

Workload Workload::make(uint64_t mappings, Pages pages, Order order, uint64_t hot) {
    Workload w;
    uint64_t small = pages == Pages::k4K ? mappings : pages == Pages::kMixed ? mappings / 2 : 0;
    w.mapped.reserve(mappings);
    uint64_t iova = 0;
    // No two neighbours are contiguous in guest memory: a run ends with its mapping.
    const auto add = [&](uint64_t bytes) {
        w.mapped.push_back({iova, bytes, (mappings - w.mapped.size()) * 2 * bytes});
        iova += bytes;
    };
    while (w.mapped.size() < small) add(kPage);
    iova = (iova + kLargePage - 1) / kLargePage * kLargePage;
    while (w.mapped.size() < mappings) add(kLargePage);

    // Long enough that the questions are not learnt by heart, short enough not to fill the caches
    // that are being measured.
    const uint64_t asked = hot == 0 ? mappings : hot;
    const uint64_t first = hot == 0 ? 0 : mappings / 2 / hot * hot;
    const uint64_t length = std::clamp<uint64_t>(asked * 4, 4096, 1 << 20);
    w.stream.reserve(length);
    std::mt19937_64 random(1);
    for (uint64_t i = 0; i < length; ++i) {
        const uint64_t which = order == Order::kRandom ? random() % asked : i % asked;
        const Mapped& m = w.mapped[first + which];
        const uint64_t page = m.bytes == kPage ? 0 : random() % (m.bytes / kPage);
        w.stream.push_back(uint32_t(m.iova / kPage + page));
    }
    return w;
}

}  // namespace viommu::perf
