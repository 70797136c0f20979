"""``make bench``: every suite in turn, and the table. ``make bench-quick``: few samples, ratios only.

The exit status is 0 if every row passes, 1 if one does not, 130 if the run was interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from scoreboard import machine
from scoreboard.bench import Bench, a_bench
from scoreboard.figures import Broken, Line, Verdict, verdict
from scoreboard.table import one_line, table

SUITES = (
    # One agent: its start, its memory, and the coordinator's.
    "launch",
    # A few agents: rendezvous, and a worker's end.
    "rounds",
    # What else is lost, and who comes: agents, hosts, links, spares, joiners; gloo.
    "losses",
    # Rendezvous of many clients, beside torch's c10d.
    "clients",
    # Ten thousand agents.
    "fleet",
)
"""Each is a module of this package with ``rows(bench: Bench) -> Iterator[Row]``."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    began, facts = time.monotonic(), machine.facts()
    lines: list[Line] = []
    status = 0
    try:
        with a_bench(args.quick) as bench:
            for line in _measure(bench, args.only or SUITES):
                _tell(one_line(line, args.quick))
                lines.append(line)
    except KeyboardInterrupt:
        _tell("interrupted: what follows is not all")
        status = 130
    facts |= {"load after": machine.load(), "took": f"{time.monotonic() - began:.0f} s"}
    everything = _everything(lines, args.quick, facts)
    if args.save is not None:
        args.save.write_text(everything + "\n")
    print(everything if args.output == "json" else _board(lines, args.quick, facts), flush=True)
    failed = any(verdict(line, args.quick) is Verdict.FAIL for line in lines)
    return status or int(failed)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scoreboard", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="few samples, and a ratio fails under 3x only")
    parser.add_argument("--only", action="append", choices=SUITES, help="this suite; may be repeated")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="(default: table)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write there what -o json prints, beside the table")
    return parser.parse_args(argv)


def _measure(bench: Bench, suites: Sequence[str]) -> Iterator[Line]:
    """The rows of each; one that raises is a row that fails, and not the end of the others."""
    for name in suites:
        _tell(f"--- {name}")
        began = time.monotonic()
        try:
            yield from importlib.import_module(f"scoreboard.{name}").rows(bench)
        except Exception as error:
            traceback.print_exc()
            yield Broken(name, f"{type(error).__name__}: {error}".splitlines()[0])
        finally:
            left = bench.sweep()
        _tell(f"--- {name} took {time.monotonic() - began:.0f} s" + (f"; {left} processes were left" if left else ""))


def _board(lines: list[Line], quick: bool, facts: dict[str, str]) -> str:
    told = ", ".join(f"{name} {value}" for name, value in facts.items())
    return f"\n{table(lines, quick)}\n\n{told}"


def _everything(lines: list[Line], quick: bool, facts: dict[str, str]) -> str:
    return json.dumps({"quick": quick, "facts": facts, "rows": [_row(line, quick) for line in lines]}, indent=2)


def _row(line: Line, quick: bool) -> dict[str, object]:
    """With every sample, and how each target was judged."""
    judged = [dataclasses.asdict(judgement) for judgement in line.judgements(quick)]
    return dataclasses.asdict(line) | {"targets": judged, "verdict": verdict(line, quick)}


def _tell(text: str) -> None:
    """Progress, which is not the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
