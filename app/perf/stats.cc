// SPDX-License-Identifier: BSD-3-Clause
#include "stats.hh"

#include <algorithm>
#include <cmath>

namespace viommu::perf {

double quantile(std::span<const double> sorted, double fraction) {
    const auto rank = size_t(std::ceil(fraction * double(sorted.size())));
    return sorted[std::clamp<size_t>(rank, 1, sorted.size()) - 1];
}

Summary summarize(std::vector<double> samples) {
    if (samples.empty()) return {};
    std::sort(samples.begin(), samples.end());
    return {samples.size(),         quantile(samples, 0.5), quantile(samples, 0.1),
            quantile(samples, 0.9), samples.front(),        samples.back()};
}

Tail tail_of(std::vector<double> samples) {
    if (samples.empty()) return {};
    std::sort(samples.begin(), samples.end());
    return {quantile(samples, 0.99), quantile(samples, 0.999), samples.back()};
}

Line fit_line(std::span<const double> x, std::span<const double> y) {
    const auto n = double(x.size());
    double sx = 0, sy = 0, sxx = 0, sxy = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        sx += x[i], sy += y[i];
        sxx += x[i] * x[i], sxy += x[i] * y[i];
    }
    const double b = (n * sxy - sx * sy) / (n * sxx - sx * sx);
    return {(sy - b * sx) / n, b};
}

}  // namespace viommu::perf
