// SPDX-License-Identifier: BSD-3-Clause
#include "net_report.hh"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace viommu::perf {
namespace {

constexpr double kStaticTarget = 0.97, kDynamicTarget = 10;

const NetEntrant& entrant(const std::string& name) {
    return *std::find_if(std::begin(kNetEntrants), std::end(kNetEntrants),
                         [&](const NetEntrant& e) { return e.name == name; });
}

const Measured* find_if_there(const std::vector<Measured>& all, const char* name) {
    for (const Measured& m : all)
        if (m.name == name) return &m;
    return nullptr;
}

const char* ring_text(const PacketCase& c) { return c.packed ? "packed" : "split"; }

std::vector<std::string> parameters(const PacketCase& c) {
    return {std::to_string(c.bytes), to_string(c.way), ring_text(c)};
}

Summary scaled(Summary s, double by) {
    for (double* v : {&s.median, &s.p10, &s.p90, &s.min, &s.max}) *v *= by;
    return s;
}

/// `what`: the baseline, and of the others those with static or those with dynamic mappings.
Table packets_table(const std::vector<NetMeasured>& all, const std::string& title, bool dynamic,
                    std::vector<Measured> NetMeasured::*what, bool gigabits) {
    Table table{title,
                gigabits ? "Gb/s of frames" : "million packets per second",
                {"bytes", "direction", "ring"},
                {},
                {}};
    table.more_is_better = true;
    for (const NetMeasured& m : all) {
        std::vector<Measured> rows;
        for (const Measured& one : m.*what) {
            if (one.name != kVhost && entrant(one.name).is_dynamic() != dynamic) continue;
            rows.push_back(one);
            if (gigabits) rows.back().value = scaled(one.value, m.c.bytes * 8 / 1e3);
        }
        table.add(rows, parameters(m.c), kVhost);
    }
    return table;
}

Point point(double x, const Summary& s) { return {x, s.median, s.p10, s.p90}; }

std::string label(const PacketCase& c) {
    const char* way = c.way == Way::kFromGuest ? "from" : c.way == Way::kToGuest ? "to" : "both";
    return fmt::format("{}, {}", way, ring_text(c));
}

/// Cases of one size as groups of bars; a bar for each of `names`.
Chart bars(const std::vector<NetMeasured>& all, uint32_t bytes, const std::string& title,
           const std::vector<const char*>& names, std::vector<Measured> NetMeasured::*what) {
    Chart chart{title, "direction as the guest sees it, ring", "million packets per second", {}};
    for (const char* name : names) chart.series.push_back({name, {}, name == kVhost});
    for (const NetMeasured& m : all) {
        if (m.c.bytes != bytes) continue;
        chart.labels.push_back(label(m.c));
        for (size_t i = 0; i < names.size(); ++i) {
            const Measured* one = find_if_there(m.*what, names[i]);
            chart.series[i].points.push_back(one != nullptr ? point(0, one->value) : Point{});
        }
    }
    return chart;
}

void draw_charts(const std::vector<NetMeasured>& all, Results& results) {
    for (const uint32_t bytes : {64u, 1500u}) {
        Chart chart = bars(all, bytes, fmt::format("The device's core, {} bytes", bytes),
                           {kVhost, kTlb4K, kOursBypass, kOurs1G, kOurs4K}, &NetMeasured::device);
        chart.log_y = false;
        results.charts.push_back(std::move(chart));
    }
    for (const uint32_t bytes : {64u, 1500u})
        results.charts.push_back(bars(
            all, bytes, fmt::format("Map and unmap for each packet, both ends, {} bytes", bytes),
            {kVhost, kTlbStrict, kTlbDeferred, kTlbFlush, kOursStrict, kOursDeferred},
            &NetMeasured::both_ends));
}

/// The least of the ratios in the cases that are judged, and where.
struct Worst {
    double ratio = std::numeric_limits<double>::infinity();
    std::string where = "nowhere";

    void add(const Measured* ours, const Measured* theirs, const PacketCase& c) {
        if (ours == nullptr || theirs == nullptr || (c.bytes != 64 && c.bytes != 1500)) return;
        const double r = ours->value.median / theirs->value.median;
        if (r >= ratio) return;
        ratio = r;
        where = fmt::format("{} bytes {}, {}", c.bytes, to_string(c.way), ring_text(c));
    }
    bool any() const { return ratio < std::numeric_limits<double>::infinity(); }
    std::string text(int digits) const {
        return any() ? fmt::format("{:.{}f}x ({})", ratio, digits, where) : "not measured";
    }
};

/// By what the device's core can do: at both ends together the guest's driver is the slower.
void judge_static(const std::vector<NetMeasured>& all, Results& results) {
    Worst device, both;
    std::string others;
    for (const NetMeasured& m : all) {
        device.add(find_if_there(m.device, kOurs4K), find_if_there(m.device, kVhost), m.c);
        both.add(find_if_there(m.both_ends, kOurs4K), find_if_there(m.both_ends, kVhost), m.c);
    }
    for (const char* name : {kOurs2M, kOurs1G, kOursBypass}) {
        Worst worst;
        for (const NetMeasured& m : all)
            worst.add(find_if_there(m.device, name), find_if_there(m.device, kVhost), m.c);
        others += fmt::format("; {}: {}", name + std::string_view("ours, ").size(), worst.text(2));
    }
    results.targets.push_back(
        {"net.static",
         "virtio-net with translation, static 4K maps: the device's core, the worst case",
         ">= 0.97x librte_vhost without IOMMU",
         fmt::format("{}{}; both ends, 4K: {}", device.text(2), others, both.text(2)),
         device.any() && device.ratio >= kStaticTarget});
}

void judge_dynamic(const std::vector<NetMeasured>& all, Results& results) {
    Worst deferred, strict;
    for (const NetMeasured& m : all) {
        // Whichever way of it is best for librte_vhost.
        for (const char* theirs : {kTlbDeferred, kTlbFlush})
            deferred.add(find_if_there(m.both_ends, kOursDeferred),
                         find_if_there(m.both_ends, theirs), m.c);
        strict.add(find_if_there(m.both_ends, kOursStrict),
                   find_if_there(m.both_ends, kTlbStrict), m.c);
    }
    results.targets.push_back(
        {"net.dynamic", "virtio-net, map and unmap for each packet, 4K: both ends, the worst case",
         ">= 10x librte_vhost with its IOTLB",
         fmt::format("deferred {}; strict {}", deferred.text(1), strict.text(1)),
         deferred.any() && strict.any() &&
             std::min(deferred.ratio, strict.ratio) >= kDynamicTarget});
}

}  // namespace

void report_net(const std::vector<NetMeasured>& all, const std::vector<std::string>& notes,
                Results& results) {
    const auto add = [&](const std::string& title, bool dynamic,
                         std::vector<Measured> NetMeasured::*what) {
        for (const bool gigabits : {false, true}) {
            Table table = packets_table(all, title, dynamic, what, gigabits);
            if (!gigabits) table.notes = notes;
            report(results, std::move(table));
        }
    };
    add("static mappings, what the device's core can do", false, &NetMeasured::device);
    add("static mappings, both ends", false, &NetMeasured::both_ends);
    add("map and unmap for each packet, both ends", true, &NetMeasured::both_ends);
    draw_charts(all, results);
    judge_static(all, results);
    judge_dynamic(all, results);
}

}  // namespace viommu::perf
