// SPDX-License-Identifier: BSD-3-Clause
/// Drawings of results: SVG that needs nothing from outside, the same for the same numbers.
#pragma once

#include <string>
#include <vector>

namespace viommu::perf {

struct Point {
    double x, y;
    double low, high;  ///< the spread, drawn as a whisker
};

struct Series {
    std::string name;
    std::vector<Point> points;  ///< of a bar chart: one per label, x unused
    bool baseline = false;      ///< drawn in grey, dashed
};

/// Lines over x or, when there are labels, groups of bars.
struct Chart {
    std::string title;
    std::string x_label, y_label;  ///< with units
    std::vector<Series> series;
    std::vector<std::string> labels{};  ///< of the groups of bars
    bool log_x = true, log_y = true;
    double target = 0;  ///< a line across, if not 0
    std::string target_name{};
};

/// All charts in one picture, two in a row. `caption`: one line below.
std::string draw(const std::vector<Chart>& charts, const std::string& caption);

}  // namespace viommu::perf
