"""The scoreboard as text: a markdown table whose columns are aligned, so it is read in a terminal as well. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from scoreboard.figures import RUNS, Line, Row, Skipped, Verdict, as_times, as_value, verdict

HEADINGS = ("figure", "ours", "torch", "faster", "floor", "target", "verdict")


def table(lines: Sequence[Line], quick: bool) -> str:
    """All rows, and how many pass."""
    cells = [HEADINGS, *(_cells(line, quick) for line in lines)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    rule = "|".join("-" * (width + 2) for width in widths)
    drawn = [_aligned(row, widths) for row in cells]
    notes = [f"- {line.figure}: {line.note}" for line in lines if isinstance(line, Row) and line.note]
    return "\n".join([drawn[0], f"|{rule}|", *drawn[1:], "", *notes, *([""] if notes else []), tally(lines, quick)])


def one_line(line: Line, quick: bool) -> str:
    """A row by itself, as it is told while others are measured yet."""
    return "  ".join(cell for cell in _cells(line, quick) if cell)


def tally(lines: Sequence[Line], quick: bool) -> str:
    found = [verdict(line, quick) for line in lines]
    counts = (f"{found.count(each)} {each}" for each in Verdict if each in found)
    return f"{len(lines)} row{'s' * (len(lines) != 1)}: {', '.join(counts)}" if lines else "no rows"


def _cells(line: Line, quick: bool) -> tuple[str, ...]:
    judged = line.judgements(quick)
    asked = ", ".join(judgement.asked for judgement in judged)
    verdicts = _verdicts(line, quick)
    if not isinstance(line, Row):
        return (_cell(line.figure), "", "", "", "", asked, verdicts)
    peer = line.peer if isinstance(line.peer, str) else _samples(line.peer, line.unit)
    faster = as_times(line.ratio) if line.has_peer and line.unit != RUNS else ""
    floor = _samples(line.floor, line.unit)
    return (_cell(line.figure), _samples(line.ours, line.unit), _cell(peer), faster, floor, asked, verdicts)


def _verdicts(line: Line, quick: bool) -> str:
    """In a word; of what fails by how much, of what was skipped why."""
    if isinstance(line, Skipped):
        return _cell(f"skipped: {line.reason}")
    failed = [judgement.says for judgement in line.judgements(quick) if judgement.verdict is Verdict.FAIL]
    word = str(verdict(line, quick))
    return _cell(f"{word}: {'; '.join(failed)}" if failed else word)


def _samples(samples: Sequence[float], unit: str) -> str:
    """The median, and from where to where the others are."""
    if not samples:
        return ""
    if unit == RUNS:
        return f"{sum(sample == 1.0 for sample in samples)} of {len(samples)}"
    middle = as_value(statistics.median(samples), unit)
    if len(samples) == 1:
        return middle
    return f"{middle} ({as_value(min(samples), unit)} to {as_value(max(samples), unit)})"


def _cell(text: str) -> str:
    """What would end a cell of the table, or its line, taken out."""
    return " ".join(text.replace("|", "/").split())


def _aligned(row: Iterable[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
