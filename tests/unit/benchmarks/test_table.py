"""The scoreboard as text."""

from __future__ import annotations

from scoreboard.figures import MEBIBYTES, RUNS, SECONDS, AllOf, AtMost, Broken, Faster, Row, Skipped, WithinFloor
from scoreboard.table import one_line, table

START = Row("start", SECONDS, (0.3, 0.1, 0.2), (Faster(10), WithinFloor(1)), peer=(4.0, 1.0, 2.0), floor=(0.1,))
LOSS = Row("loss", SECONDS, (0.25,), (AtMost(0.8),), peer="never: no event in 90 s", note="leases of 30 s")
MEMORY = Row("agent", MEBIBYTES, (35.0,), (AtMost(40),), peer=(210.0,))
GLOO = Row("gloo", RUNS, (1.0, 1.0), (AllOf(2),), peer=(1.0, 0.0))
BROKEN = Broken("fleet", "OSError: a | b\nand more")
SKIPPED = Skipped("cut off", "no namespaces here")

FULL = """\
| figure | ours                      | torch                   | faster | floor  | target                   | verdict                             |
|--------|---------------------------|-------------------------|--------|--------|--------------------------|-------------------------------------|
| start  | 200 ms (100 ms to 300 ms) | 2 s (1 s to 4 s)        | 10x    | 100 ms | >= 10x, <= 1x the floor  | FAIL: 2x the floor, 2x too much     |
| loss   | 250 ms                    | never: no event in 90 s |        |        | <= 800 ms                | pass                                |
| agent  | 35 MiB                     | 210 MiB                  | 6x     |        | <= 40 MiB                 | pass                                |
| gloo   | 2 of 2                    | 1 of 2                  |        |        | 2 of 2                   | pass                                |
| fleet  |                           |                         |        |        | to be measured           | FAIL: OSError: a / b and more       |

- loss: leases of 30 s

5 rows: 3 pass, 2 FAIL"""  # noqa: E501


def squeezed(text: str) -> list[str]:
    """Without what aligns it."""
    return [" ".join(line.split()) for line in text.splitlines() if not line.startswith("|--")]


def test_every_row_has_its_verdict() -> None:
    assert squeezed(table([START, LOSS, MEMORY, GLOO, BROKEN], quick=False)) == squeezed(FULL)


def test_the_columns_are_aligned() -> None:
    drawn = [line for line in table([START, LOSS, BROKEN], quick=False).splitlines() if line.startswith("|")]
    assert len({len(line) for line in drawn}) == 1
    assert [[at for at, sign in enumerate(line) if sign == "|"] for line in drawn] == [
        [at for at, sign in enumerate(drawn[0]) if sign == "|"]
    ] * len(drawn)


def test_a_quick_table_judges_ratios_only() -> None:
    assert squeezed(table([START, LOSS], quick=True))[1:] == [
        "| start | 200 ms (100 ms to 300 ms) | 2 s (1 s to 4 s) | 10x | 100 ms | >= 3x, <= 1x the floor | pass |",
        "| loss | 250 ms | never: no event in 90 s | | | <= 800 ms | not judged |",
        "",
        "- loss: leases of 30 s",
        "",
        "2 rows: 1 pass, 1 not judged",
    ]


def test_a_row_by_itself() -> None:
    assert one_line(MEMORY, quick=False) == "agent  35 MiB  210 MiB  6x  <= 40 MiB  pass"


def test_what_cannot_be_measured_here_says_why_and_fails_nothing() -> None:
    assert one_line(SKIPPED, quick=False) == "cut off  to be measured  skipped: no namespaces here"
    assert table([SKIPPED], quick=False).endswith("\n1 row: 1 not judged")


def test_no_rows_at_all() -> None:
    assert table([], quick=False).endswith("\nno rows")
