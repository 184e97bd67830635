// SPDX-License-Identifier: BSD-3-Clause
#include "results.hh"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace viommu::perf {
namespace {

double median_for_ratio(const Measured& m, bool cpu) {
    return cpu ? m.cpu->median : m.value.median;
}

nlohmann::ordered_json summary_json(const Summary& s) {
    return {{"n", s.n},     {"median", s.median}, {"p10", s.p10},
            {"p90", s.p90}, {"min", s.min},       {"max", s.max}};
}

/// Of a rate: "0.98x".
std::string ratio_of(const Table& table, const Row& row) {
    return table.more_is_better ? number_text(row.ratio) + "x" : ratio_text(row.ratio);
}

std::string against(const Table& table, const Row& row) {
    const std::string ratio = ratio_of(table, row);
    if (table.more_is_better) return ratio + " of " + row.baseline;
    return ratio + (ratio == "the same" ? " as " : " than ") + row.baseline;
}

/// Cells below one another, numbers to the right.
std::string grid(const std::vector<std::vector<std::string>>& lines, size_t left_columns) {
    std::vector<size_t> widths(lines.front().size());
    for (const auto& line : lines)
        for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
    std::string out;
    for (const auto& line : lines) {
        std::string text;
        for (size_t i = 0; i < line.size(); ++i) {
            if (i != 0) text += "  ";
            text += i < left_columns ? fmt::format("{:<{}}", line[i], widths[i])
                                     : fmt::format("{:>{}}", line[i], widths[i]);
        }
        text.erase(text.find_last_not_of(' ') + 1);
        out += text + '\n';
    }
    return out;
}

}  // namespace

std::string number_text(double value) {
    const double size = std::abs(value);
    if (size >= 99.95 || size == 0) return fmt::format("{:.0f}", value);
    if (size >= 9.995) return fmt::format("{:.1f}", value);
    return size >= 0.9995 ? fmt::format("{:.2f}", value) : fmt::format("{:.3f}", value);
}

std::string ratio_text(double ratio) {
    if (ratio > 0.995 && ratio < 1.005) return "the same";
    return ratio < 1 ? number_text(1 / ratio) + "x faster" : number_text(ratio) + "x slower";
}

void Table::add(const std::vector<Measured>& measured, const std::vector<std::string>& parameters,
                const std::string& baseline) {
    const Measured* base = baseline.empty() ? nullptr : &find(measured, baseline);
    for (const Measured& m : measured) {
        Row row{m.name, parameters, m};
        if (base != nullptr) {
            const bool cpu = m.cpu && base->cpu;
            row.baseline = baseline;
            row.ratio = median_for_ratio(m, cpu) / median_for_ratio(*base, cpu);
        }
        rows.push_back(std::move(row));
    }
}

const Row& Table::row(const std::string& subject,
                      const std::vector<std::string>& parameters) const {
    const auto found = std::find_if(rows.begin(), rows.end(), [&](const Row& r) {
        return r.subject == subject && r.parameters == parameters;
    });
    if (found == rows.end()) std::abort();  // our own mistake
    return *found;
}

std::string as_text(const Table& table) {
    const bool cpu = std::any_of(table.rows.begin(), table.rows.end(),
                                 [](const Row& r) { return r.measured.cpu.has_value(); });
    const bool tail = std::any_of(table.rows.begin(), table.rows.end(),
                                  [](const Row& r) { return r.measured.tail.has_value(); });
    // In the heading when it is the same for all.
    std::string baseline;
    bool baselines_differ = false;
    for (const Row& row : table.rows) {
        if (row.baseline.empty()) continue;
        baselines_differ |= !baseline.empty() && baseline != row.baseline;
        baseline = row.baseline;
    }

    std::vector<std::vector<std::string>> lines(1);
    lines[0] = table.columns;
    lines[0].insert(lines[0].end(), {"what", "n", "median", "p10 .. p90"});
    if (cpu) lines[0].push_back("CPU time");
    if (tail) lines[0].insert(lines[0].end(), {"p99", "p99.9", "max"});
    if (!baseline.empty())
        lines[0].push_back((table.more_is_better ? "of " : "than ") +
                           (baselines_differ ? "the baseline" : baseline));
    for (const Row& row : table.rows) {
        std::vector<std::string> line = row.parameters;
        const Summary& s = row.measured.value;
        line.insert(line.end(), {row.subject, std::to_string(s.n), number_text(s.median),
                                 fmt::format("{} .. {}", number_text(s.p10), number_text(s.p90))});
        if (cpu) line.push_back(row.measured.cpu ? number_text(row.measured.cpu->median) : "");
        if (tail)
            for (const double Tail::*value : {&Tail::p99, &Tail::p999, &Tail::max})
                line.push_back(row.measured.tail ? number_text(*row.measured.tail.*value) : "");
        if (!baseline.empty())
            line.push_back(row.baseline.empty()          ? ""
                           : row.baseline == row.subject ? "(baseline)"
                           : baselines_differ            ? against(table, row)
                                                         : ratio_of(table, row));
        lines.push_back(std::move(line));
    }
    std::string out = fmt::format("\n--- {}, {}\n", table.title, table.unit);
    out += grid(lines, table.columns.size() + 1);
    for (const auto& note : table.notes) out += "  " + note + '\n';
    return out;
}

std::string as_text(const std::vector<Target>& targets) {
    if (targets.empty()) return "";
    std::vector<std::vector<std::string>> lines{{"target", "", "wanted", "measured"}};
    for (const Target& t : targets)
        lines.push_back({t.what, t.met ? "met" : "MISSED", t.target, t.measured});
    return "\n--- targets\n" + grid(lines, 4);
}

nlohmann::ordered_json as_json(const Results& results) {
    nlohmann::ordered_json tables = nlohmann::ordered_json::array();
    for (const Table& table : results.tables) {
        nlohmann::ordered_json rows = nlohmann::ordered_json::array();
        for (const Row& row : table.rows) {
            nlohmann::ordered_json parameters = nlohmann::ordered_json::object();
            for (size_t i = 0; i < table.columns.size(); ++i)
                parameters[table.columns[i]] = row.parameters[i];
            nlohmann::ordered_json r{{"subject", row.subject}, {"parameters", parameters}};
            r["value"] = summary_json(row.measured.value);
            if (row.measured.cpu) r["cpu"] = summary_json(*row.measured.cpu);
            if (const auto& t = row.measured.tail)
                r["tail"] = {{"p99", t->p99}, {"p99.9", t->p999}, {"max", t->max}};
            if (!row.baseline.empty()) r["baseline"] = row.baseline, r["ratio"] = row.ratio;
            rows.push_back(std::move(r));
        }
        tables.push_back({{"title", table.title},
                          {"unit", table.unit},
                          {"more_is_better", table.more_is_better},
                          {"notes", table.notes},
                          {"rows", rows}});
    }
    nlohmann::ordered_json targets = nlohmann::ordered_json::array();
    for (const Target& t : results.targets)
        targets.push_back({{"id", t.id},
                           {"what", t.what},
                           {"target", t.target},
                           {"measured", t.measured},
                           {"met", t.met}});
    return {{"scenario", results.scenario},
            {"machine", as_json(results.machine)},
            {"tables", tables},
            {"targets", targets}};
}

void report(Results& results, Table table) {
    std::fputs(as_text(table).c_str(), stdout);
    std::fflush(stdout);
    results.tables.push_back(std::move(table));
}

}  // namespace viommu::perf
