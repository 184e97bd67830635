# SPDX-License-Identifier: BSD-3-Clause
"""Groups of bars as SVG, as app/perf/plot.cc draws them; the same picture for the same numbers."""
import math
from html import escape

PANEL, LEFT, RIGHT, TOP, HEIGHT, AXIS, LEGEND, GAP = 560, 62, 18, 64, 260, 46, 18, 20
INK, SOFT, GRID = "#24292f", "#6e7781", "#e4e8ec"


def text(x, y, content, size=12, anchor="start", fill=INK, extra=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{fill}"{extra}>{escape(content)}</text>')


def line(x1, y1, x2, y2, stroke, width=1, extra=""):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" '
            f'stroke-width="{width}"{extra}/>')


def rectangle(x, y, width, height, fill):
    return (f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="{fill}"/>')


def three_digits(value):
    return f"{value:.{max(0, 2 - int(math.floor(math.log10(value))))}f}" if value > 0 else "0"


def panel(left, top, title, unit, groups, series, low, high):
    """`groups`: names; `series`: of each (name, colour, [(low, median, high) for each group])."""
    x0, x1 = left + LEFT, left + PANEL - RIGHT
    bottom = top + TOP + HEIGHT
    scale = HEIGHT / math.log(high / low)

    def at(value):
        return bottom - math.log(max(value, low) / low) * scale

    out = [text(left + 8, top + 24, title, 15, extra=' font-weight="600"'),
           text(left + 8, top + 46, unit, fill=SOFT)]
    decade = low
    while decade <= high:
        for digit in (1, 2, 5):
            if decade * digit <= high:
                y = at(decade * digit)
                out.append(line(x0, y, x1, y, GRID))
                out.append(text(x0 - 8, y + 4, f"{decade * digit:g}", anchor="end", fill=SOFT))
        decade *= 10
    width = (x1 - x0) / len(groups)
    bar = min(width * 0.86 / len(series), 44)
    for g, group in enumerate(groups):
        middle = x0 + width * (g + 0.5)
        out.append(text(middle, bottom + 19, group, anchor="middle", fill=SOFT))
        for i, (_, colour, points) in enumerate(series):
            least, median, most = points[g]
            x = middle - bar * len(series) / 2 + bar * i
            out.append(rectangle(x + 1, at(median), bar - 2, bottom - at(median), colour))
            out.append(line(x + bar / 2, at(least), x + bar / 2, at(most), INK, 1.2,
                            ' stroke-opacity="0.6"'))
            out.append(text(x + bar / 2, at(most) - 4, three_digits(median), 10, "middle"))
    out.append(line(x0, bottom, x1, bottom, INK, 1.2))
    for i, (name, colour, _) in enumerate(series):
        x, y = x0 + i % 3 * 160, bottom + AXIS + 4 + i // 3 * LEGEND
        out += [rectangle(x, y - 9, 14, 10, colour), text(x + 22, y, name)]
    return out


def draw(panels, unit, caption):
    """`panels`: of each (title, groups, series), side by side, one logarithmic scale for all;
    `caption`: lines below."""
    values = [v for _, _, series in panels for s in series for point in s[2] for v in point]
    low = 10 ** math.floor(math.log10(max(min(values), 1e-3) * 0.8))
    high = max(values) * 1.5
    body = []
    for i, (title, groups, series) in enumerate(panels):
        body += panel(GAP / 2 + i * (PANEL + GAP), GAP / 2, title, unit, groups, series, low, high)
    rows = (max(len(p[2]) for p in panels) + 2) // 3
    width = len(panels) * (PANEL + GAP)
    bottom = GAP + TOP + HEIGHT + AXIS + rows * LEGEND + 26
    height = bottom + len(caption) * 16
    for i, content in enumerate(caption):
        body.append(text(width / 2, bottom + i * 16, content, 11, "middle", SOFT))
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" '
            'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">')
    return "\n".join([head, "<!-- SPDX-License-Identifier: BSD-3-Clause -->",
                      '<rect width="100%" height="100%" fill="#ffffff"/>', *body, "</svg>", ""])
