"""A saved run as a picture: ours, the floor and torch's of each row of seconds, on one logarithmic scale.

``PYTHONPATH=benchmarks python -m scoreboard.plot bench.json > docs/performance.svg``
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from scoreboard.figures import SECONDS, as_value

SERIES = (("ours", "#2a6fdb"), ("floor", "#9aa5b1"), ("peer", "#d9822b"))
NAMES = {"ours": "Rallypoint", "floor": "floor", "peer": "torch 2.13"}
TEXT_WIDTH, PLOT_WIDTH, MARGIN = 430, 470, 70
BAR, GAP, TOP = 11, 9, 46


def draw(rows: Sequence[Mapping[str, Any]]) -> str:
    """An SVG document. Raises ValueError if no row has seconds."""
    drawn = [(row["figure"], medians) for row in rows if (medians := _medians(row))]
    if not drawn:
        raise ValueError("no row of this run is in seconds")
    values = [value for _, medians in drawn for value in medians.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    scale = _Scale(low, max(high, low + 1))
    body, y = [], float(TOP)
    for figure, medians in drawn:
        body += _group(figure, medians, y, scale)
        y += len(medians) * BAR + GAP
    width = TEXT_WIDTH + PLOT_WIDTH + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + GAP:.0f}"'
        ' font-family="sans-serif" font-size="11">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *_frame(scale, y), *body, "</svg>", ""])


class _Scale:
    """From ``10 ** low`` to ``10 ** high`` seconds."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def x(self, value: float) -> float:
        return TEXT_WIDTH + PLOT_WIDTH * (math.log10(value) - self.low) / (self.high - self.low)


def _medians(row: Mapping[str, Any]) -> dict[str, float]:
    """By series; none if the row is not of seconds. A peer that is told in words is left out."""
    if row.get("unit") != SECONDS:
        return {}
    samples = {name: row[name] for name, _ in SERIES if row[name] and not isinstance(row[name], str)}
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return {name: value for name, value in medians.items() if value > 0}


def _group(figure: str, medians: Mapping[str, float], y: float, scale: _Scale) -> list[str]:
    middle = y + len(medians) * BAR / 2 + 4
    parts = [f'<text x="{TEXT_WIDTH - 8}" y="{middle:.1f}" text-anchor="end">{escape(figure)}</text>']
    for (name, value), top in zip(medians.items(), _tops(y), strict=False):
        end, colour = scale.x(value), dict(SERIES)[name]
        parts.append(
            f'<rect x="{TEXT_WIDTH}" y="{top:.1f}" width="{end - TEXT_WIDTH:.1f}" height="{BAR - 1}" fill="{colour}"/>'
        )
        # With a white edge, as lines of the scale run through it.
        parts.append(
            f'<text x="{end + 4:.1f}" y="{top + BAR - 2:.1f}" font-size="9" stroke="white" stroke-width="3"'
            f' paint-order="stroke">{as_value(value, SECONDS)}</text>'
        )
    return parts


def _tops(y: float) -> list[float]:
    return [y + number * BAR for number in range(len(SERIES))]


def _frame(scale: _Scale, bottom: float) -> list[str]:
    """What the colours mean, and a line for each power of ten."""
    parts = []
    for number, (name, colour) in enumerate(SERIES):
        left = TEXT_WIDTH + number * 110
        parts.append(f'<rect x="{left}" y="8" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{left + 14}" y="17">{NAMES[name]}</text>')
    for power in range(scale.low, scale.high + 1):
        x = scale.x(10.0**power)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP - 10}" text-anchor="middle">{as_value(10.0**power, SECONDS)}</text>')
    return parts


if __name__ == "__main__":
    sys.stdout.write(draw(json.loads(Path(sys.argv[1]).read_text())["rows"]))
