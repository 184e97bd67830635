// SPDX-License-Identifier: BSD-3-Clause
#include "plot.hh"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "results.hh"

namespace viommu::perf {
namespace {

constexpr double kPanelWidth = 560, kPlotLeft = 62, kPlotRight = 18, kPlotTop = 64;
constexpr double kPlotHeight = 260, kAxisHeight = 46, kLegendLine = 18, kGap = 20;
constexpr const char* kInk = "#24292f";
constexpr const char* kSoft = "#6e7781";
constexpr const char* kGrid = "#e4e8ec";
/// Apart also for those who do not see all colours (Okabe and Ito).
constexpr std::array kColours{"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                              "#e69f00", "#56b4e9", "#882255"};
constexpr std::array kGreys{"#8c959f", "#57606a", "#b1b8c0"};

std::string escape(const std::string& text) {
    std::string out;
    for (const char c : text)
        out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
    return out;
}

struct TextStyle {
    double size = 12;
    const char* anchor = "start";
    const char* fill = kInk;
    const char* extra = "";
};

std::string text(double x, double y, const std::string& content, TextStyle style = {}) {
    return fmt::format(
        R"(<text x="{:.1f}" y="{:.1f}" font-size="{}" text-anchor="{}" fill="{}" {}>{}</text>)"
        "\n",
        x, y, style.size, style.anchor, style.fill, style.extra, escape(content));
}

std::string line(double x1, double y1, double x2, double y2, const char* stroke, double width,
                 const char* extra = "") {
    return fmt::format(
        R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}" stroke-width="{}" {}/>)"
        "\n",
        x1, y1, x2, y2, stroke, width, extra);
}

/// 1, 64, 4K, 1M: what people say for counts.
std::string axis_text(double value) {
    if (value >= 1 << 20) return fmt::format("{:.0f}M", value / (1 << 20));
    if (value >= 1 << 10) return fmt::format("{:.0f}K", value / 1024);
    return fmt::format("{:.0f}", value);
}

std::string bar_text(double value) {
    if (value >= 1e6) return number_text(value / 1e6) + "M";
    return value >= 1e4 ? number_text(value / 1e3) + "k" : number_text(value);
}

std::string value_text(double value) {
    if (value >= 1e6) return fmt::format("{:g}M", value / 1e6);
    if (value >= 1e4) return fmt::format("{:g}k", value / 1e3);
    return fmt::format("{:g}", value);
}

/// One axis: values to pixels.
struct Scale {
    double low, high, from, to;
    bool logarithmic;

    double at(double value) const {
        value = std::clamp(std::isfinite(value) ? value : high, low, high);
        if (!logarithmic) return from + (value - low) / (high - low) * (to - from);
        return from + std::log(value / low) / std::log(high / low) * (to - from);
    }
};

/// The finest of 1, 2, 5 times a power of ten that gives few lines.
std::vector<double> ticks(const Scale& scale) {
    std::vector<double> out;
    if (scale.logarithmic) {
        const bool few = scale.high / scale.low < 200;
        for (double decade = 1e-3; decade <= scale.high * 1.001; decade *= 10)
            for (const double digit : {1.0, 2.0, 5.0}) {
                const double v = decade * digit;
                if (digit != 1 && !few) continue;
                if (v >= scale.low * 0.999 && v <= scale.high * 1.001) out.push_back(v);
            }
        return out;
    }
    double step = std::pow(10, std::floor(std::log10(scale.high / 4)));
    while (scale.high / step > 6) step *= scale.high / step > 12 ? 5 : 2;
    for (double v = 0; v <= scale.high * 1.001; v += step) out.push_back(v);
    return out;
}

struct Bounds {
    double low = INFINITY, high = 0;
    void add(double v) {
        if (!std::isfinite(v)) return;
        if (v > 0) low = std::min(low, v);
        high = std::max(high, v);
    }
};

Scale y_scale(const Chart& chart, double top) {
    Bounds y;
    for (const Series& s : chart.series)
        for (const Point& p : s.points) y.add(p.low), y.add(p.high), y.add(p.y);
    if (chart.target != 0) y.add(chart.target);
    if (y.high <= 0) y.low = y.high = 1;  // nothing to draw
    Scale scale{0, y.high * 1.1, top + kPlotHeight, top, chart.log_y};
    if (chart.log_y) {
        scale.low = y.low / 1.3, scale.high = y.high * 1.5;
        if (chart.labels.empty()) return scale;
        scale.low = std::pow(10, std::floor(std::log10(y.low * 0.8)));  // bars need a floor
    }
    return scale;
}

class Panel {
  public:
    Panel(const Chart& chart, double left, double top)
        : chart_(chart),
          left_(left),
          top_(top),
          x0_(left + kPlotLeft),
          x1_(left + kPanelWidth - kPlotRight),
          y_(y_scale(chart, top + kPlotTop)) {}

    std::string draw() {
        out_ +=
            text(left_ + 8, top_ + 24, chart_.title, {15, "start", kInk, "font-weight=\"600\""});
        out_ += text(left_ + 8, top_ + 46, chart_.y_label, {12, "start", kSoft});
        for (const double v : ticks(y_)) {
            out_ += line(x0_, y_.at(v), x1_, y_.at(v), kGrid, 1);
            out_ += text(x0_ - 8, y_.at(v) + 4, value_text(v), {12, "end", kSoft});
        }
        chart_.labels.empty() ? draw_lines() : draw_bars();
        const double bottom = y_.from;
        out_ += line(x0_, bottom, x1_, bottom, kInk, 1.2);
        out_ += text((x0_ + x1_) / 2, bottom + 38, chart_.x_label, {12, "middle", kSoft});
        if (chart_.target != 0) {
            const double y = y_.at(chart_.target);
            out_ += line(x0_, y, x1_, y, "#1a7f37", 1.4, "stroke-dasharray=\"2 3\"");
            out_ += text(x1_ - 4, y - 5, chart_.target_name, {12, "end", "#1a7f37"});
        }
        draw_legend(bottom + kAxisHeight + 14);
        return out_;
    }

  private:
    const char* colour(size_t index) const {
        size_t greys = 0, colours = 0;
        for (size_t i = 0; i < index; ++i) ++(chart_.series[i].baseline ? greys : colours);
        return chart_.series[index].baseline ? kGreys[greys % kGreys.size()]
                                             : kColours[colours % kColours.size()];
    }

    void whisker(double x, const Point& p, const char* stroke) {
        out_ += line(x, y_.at(p.low), x, y_.at(p.high), stroke, 1.2, "stroke-opacity=\"0.6\"");
    }

    void draw_lines() {
        Bounds x;
        for (const Series& s : chart_.series)
            for (const Point& p : s.points) x.add(p.x);
        const Scale scale{chart_.log_x ? x.low : 0, x.high, x0_ + 12, x1_ - 12, chart_.log_x};
        std::vector<double> marks;
        for (const Series& s : chart_.series)
            for (const Point& p : s.points) marks.push_back(p.x);
        std::sort(marks.begin(), marks.end());
        double last = -100;
        for (const double v : marks) {
            if (scale.at(v) - last < 34) continue;
            last = scale.at(v);
            out_ += line(last, y_.from, last, y_.from + 4, kInk, 1);
            out_ += text(last, y_.from + 19, axis_text(v), {12, "middle", kSoft});
        }
        for (size_t i = 0; i < chart_.series.size(); ++i) {
            const Series& s = chart_.series[i];
            std::string path;
            for (const Point& p : s.points)
                path += fmt::format("{:.1f},{:.1f} ", scale.at(p.x), y_.at(p.y));
            out_ += fmt::format(
                R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="2.2" {}/>)"
                "\n",
                path, colour(i), s.baseline ? "stroke-dasharray=\"6 4\"" : "");
            for (const Point& p : s.points) {
                whisker(scale.at(p.x), p, colour(i));
                out_ += fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="3.2" fill="{}"/>)"
                                    "\n",
                                    scale.at(p.x), y_.at(p.y), colour(i));
            }
        }
    }

    void draw_bars() {
        const double group = (x1_ - x0_) / double(chart_.labels.size());
        const double bar = std::min(group * 0.8 / double(chart_.series.size()), 44.0);
        for (size_t g = 0; g < chart_.labels.size(); ++g) {
            const double middle = x0_ + group * (double(g) + 0.5);
            out_ += text(middle, y_.from + 19, chart_.labels[g], {12, "middle", kSoft});
            const double first = middle - bar * double(chart_.series.size()) / 2;
            for (size_t i = 0; i < chart_.series.size(); ++i) {
                if (g >= chart_.series[i].points.size()) continue;
                const Point& p = chart_.series[i].points[g];
                const double x = first + bar * double(i), y = y_.at(p.y);
                if (p.y <= 0) continue;
                out_ += fmt::format(
                    R"(<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"/>)"
                    "\n",
                    x + 1, y, bar - 2, y_.from - y, colour(i));
                whisker(x + bar / 2, p, kInk);
                label_bar(x + bar / 2, std::min(y, y_.at(p.high)) - 4, bar_text(p.y), bar);
            }
        }
    }

    /// Upright where it would run into the next bar's.
    void label_bar(double x, double y, const std::string& label, double bar) {
        constexpr double kTooNarrow = 22;
        if (bar >= kTooNarrow) {
            out_ += text(x, y, label, {bar < 30 ? 10.0 : 11.0, "middle", kInk});
            return;
        }
        x += 3.5;  // half a line's height
        const auto turned = fmt::format("transform=\"rotate(-90 {:.1f} {:.1f})\"", x, y);
        out_ += text(x, y, label, {10.0, "start", kInk, turned.c_str()});
    }

    void draw_legend(double y) {
        for (size_t i = 0; i < chart_.series.size(); ++i) {
            const double x = left_ + kPlotLeft + double(i % 2) * 240;
            const double at = y + double(i / 2) * kLegendLine;
            const Series& s = chart_.series[i];
            out_ += chart_.labels.empty()
                        ? line(x, at - 4, x + 22, at - 4, colour(i), 2.4,
                               s.baseline ? "stroke-dasharray=\"6 4\"" : "")
                        : fmt::format(
                              R"(<rect x="{:.1f}" y="{:.1f}" width="14" height="10" fill="{}"/>)"
                              "\n",
                              x + 6, at - 9, colour(i));
            out_ += text(x + 28, at, s.name + (s.baseline ? " (baseline)" : ""));
        }
    }

    const Chart& chart_;
    double left_, top_, x0_, x1_;
    Scale y_;
    std::string out_;
};

double panel_height(const Chart& chart) {
    return kPlotTop + kPlotHeight + kAxisHeight +
           kLegendLine * double((chart.series.size() + 1) / 2) + 8;
}

}  // namespace

std::string draw(const std::vector<Chart>& charts, const std::string& caption) {
    const size_t columns = charts.size() == 1 ? 1 : 2;
    std::string body;
    double y = kGap / 2;
    for (size_t row = 0; row < charts.size(); row += columns) {
        double tallest = 0;
        for (size_t i = row; i < std::min(row + columns, charts.size()); ++i) {
            const double left = kGap / 2 + double(i - row) * (kPanelWidth + kGap);
            body += Panel(charts[i], left, y).draw();
            tallest = std::max(tallest, panel_height(charts[i]));
        }
        y += tallest + kGap;
    }
    const double width = double(columns) * (kPanelWidth + kGap), height = y + 22;
    body += text(width / 2, y + 4, caption, {11, "middle", kSoft});
    return fmt::format(
        R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.0f} {1:.0f}" )"
        R"(width="{0:.0f}" height="{1:.0f}" font-family="Helvetica, Arial, DejaVu Sans, sans-serif">)"
        "\n<!-- SPDX-License-Identifier: BSD-3-Clause -->\n"
        R"(<rect width="100%" height="100%" fill="#ffffff"/>)"
        "\n{2}</svg>\n",
        width, height, body);
}

}  // namespace viommu::perf
