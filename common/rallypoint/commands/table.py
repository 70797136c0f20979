"""Lines of columns. Cells come from the network: what a terminal would take for a command is spelled out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rallypoint.commands.output import Paint, plain
from rallypoint.commands.words import one_line

NOTHING = "-"
"""In an empty cell, so that a line always has as many words as columns, but for the last one."""

_GAP = "  "


def table(header: Sequence[str], rows: Iterable[Sequence[str]], paint: Paint = plain) -> str:
    """Columns below their header. Only the last one may hold several words, and be empty."""
    lines = [tuple(header), *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(line, widths, paint) for line in lines)


def _cells(row: Sequence[str]) -> tuple[str, ...]:
    *cells, last = map(one_line, row)
    return (*(cell or NOTHING for cell in cells), last)


def _line(cells: Sequence[str], widths: Sequence[int], paint: Paint) -> str:
    padding = [" " * (width - len(cell)) for cell, width in zip(cells, widths, strict=True)]
    padding[-1] = ""
    return _GAP.join(paint(cell) + pad for cell, pad in zip(cells, padding, strict=True)).rstrip()
