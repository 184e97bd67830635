// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace viommu::perf {

/// What a set of samples says.
struct Summary {
    size_t n = 0;
    double median = 0;
    double p10 = 0, p90 = 0;  ///< the spread
    double min = 0, max = 0;
};

/// Where it is the rare ones that count.
struct Tail {
    double p99 = 0, p999 = 0, max = 0;
};

/// By nearest rank. `sorted`: not empty, ascending.
double quantile(std::span<const double> sorted, double fraction);
Summary summarize(std::vector<double> samples);
Tail tail_of(std::vector<double> samples);

/// y = a + b x, by least squares. At least two different x.
struct Line {
    double a, b;
};
Line fit_line(std::span<const double> x, std::span<const double> y);

}  // namespace viommu::perf
