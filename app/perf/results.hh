// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "harness.hh"
#include "machine.hh"
#include "plot.hh"

namespace viommu::perf {

/// One line of a table: a subject under some parameters.
struct Row {
    std::string subject;
    std::vector<std::string> parameters;  ///< as many as the table has columns for
    Measured measured;
    std::string baseline{};  ///< subject of the row that `ratio` is about; empty: none
    double ratio = 0;        ///< this median by that one; of CPU time where both have it
};

struct Table {
    std::string title;
    std::string unit;                  ///< of every value
    std::vector<std::string> columns;  ///< names of the parameters
    std::vector<Row> rows;
    std::vector<std::string> notes;
    bool more_is_better = false;  ///< values are rates; otherwise times

    /// Add what was measured together. With a baseline: one of `measured`, by name.
    void add(const std::vector<Measured>& measured, const std::vector<std::string>& parameters,
             const std::string& baseline = {});
    /// The row must be there.
    const Row& row(const std::string& subject, const std::vector<std::string>& parameters) const;
};

/// A line of the table of targets (doc/performance.md).
struct Target {
    std::string id;        ///< e.g. "translate.hot"
    std::string what;      ///< e.g. "translate, hot working set, one reader"
    std::string target;    ///< e.g. "<= 3 ns"
    std::string measured;  ///< e.g. "2.81 ns"
    bool met = false;
};

/// What one scenario found.
struct Results {
    std::string scenario;
    Machine machine;
    std::vector<Table> tables;
    std::vector<Target> targets;
    std::vector<Chart> charts;
};

std::string as_text(const Table& table);
std::string as_text(const std::vector<Target>& targets);
nlohmann::ordered_json as_json(const Results& results);

/// Keep a table, and print it.
void report(Results& results, Table table);

/// Three significant digits, as people write them: 0.812, 2.81, 44.0, 1234.
std::string number_text(double value);
/// "3.4x faster", "1.07x slower", or "the same".
std::string ratio_text(double ratio);

}  // namespace viommu::perf
