"""Ten thousand agents, and the bare echo server with as many streams in turns with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from scoreboard.bench import Bench
from scoreboard.figures import CORES, MEBIBYTES, SECONDS, AtMost, Row, WithinFloor
from scoreboard.fleet.figures import EchoFigures, FleetFigures, Plan
from scoreboard.fleet.plain import read

BEATS_PER_AGENT = 0.2
"""A second: 2,000 of ten thousand agents."""
MEASURED_S = 300.0
"""Whatever takes longer than this is stuck."""
NO_SUCH_THING = "no such thing"

F = TypeVar("F", EchoFigures, FleetFigures)


def rows(bench: Bench) -> Iterator[Row]:
    count, turns = bench.pick(10_000, 1_000), bench.pick(2, 1)
    plan = Plan(windows=bench.pick(3, 2), window_s=bench.pick(4, 5), tellings=bench.pick(3, 3), returns=1)
    floors, ours = [], []
    for _ in range(turns):
        floors.append(_run(bench, "echo", EchoFigures, count, plan))
        ours.append(_run(bench, "ours", FleetFigures, count, plan))
    yield from steady_rows(count, floors, ours)
    yield from storm_rows(count, ours)
    yield from restart_rows(count, floors, ours)


def steady_rows(count: int, floors: Sequence[EchoFigures], ours: Sequence[FleetFigures]) -> Iterator[Row]:
    windows = [window for run in ours for window in run.windows]
    bare = [window for run in floors for window in run.windows]
    rate = f"{count * BEATS_PER_AGENT:,.0f} heartbeats/s of {count:,} agents"
    cores, limits = [window.cores for window in windows], (AtMost(0.5), WithinFloor(1.5))
    answered = min(window.answers.per_s for window in windows)
    note = f"{answered:,.0f}/s answered at least; the load took {max(window.own_cores for window in windows):.2f} cores"
    yield Row(f"{rate}: CPU", CORES, cores, limits, NO_SUCH_THING, [window.cores for window in bare], note)
    memory, floor = [window.rss_mib for window in windows], [window.rss_mib for window in bare]
    yield Row(f"{count:,} agents attached: memory", MEBIBYTES, memory, (WithinFloor(1.5),), NO_SUCH_THING, floor)
    p99, longest = [window.answers.p99 for window in windows], [window.answers.longest for window in windows]
    floor = [window.answers.p99 for window in bare]
    yield Row(f"{rate}: answer, p99", SECONDS, p99, (AtMost(0.05),), NO_SUCH_THING, floor)
    floor = [window.answers.longest for window in bare]
    yield Row(f"{rate}: answer, longest", SECONDS, longest, (AtMost(0.15, worst=True),), NO_SUCH_THING, floor)


def storm_rows(count: int, ours: Sequence[FleetFigures]) -> Iterator[Row]:
    """That none is refused for good goes without a figure: who is not attached in the end fails the suite."""
    ends = sum(run.ends - count * len(run.returns) for run in ours)
    note = f"{ends} streams ended but for the SIGKILLs" if ends else "no stream ended but for the SIGKILLs"
    joined = [run.join.attached_s for run in ours]
    yield Row(f"{count:,} agents join at once", SECONDS, joined, (AtMost(8, worst=True),), NO_SUCH_THING, note=note)
    back = [back.attached_s for run in ours for back in run.returns]
    figure = f"coordinator SIGKILL to {count:,} agents attached again"
    yield Row(figure, SECONDS, back, (AtMost(10, worst=True),), NO_SUCH_THING)


def restart_rows(count: int, floors: Sequence[EchoFigures], ours: Sequence[FleetFigures]) -> Iterator[Row]:
    restarts = [restart for run in ours for restart in run.restarts]
    floor = [fan_out for run in floors for fan_out in run.fan_outs_s]
    told, running = [restart.stop_s for restart in restarts], [restart.run_s for restart in restarts]
    figure = f"worker fails to the stop at the last of {count:,} agents"
    yield Row(figure, SECONDS, told, (WithinFloor(1.5),), NO_SUCH_THING, floor)
    figure = f"last stopped to the new round at the last of {count:,} agents"
    yield Row(figure, SECONDS, running, (WithinFloor(3),), NO_SUCH_THING, floor)


def _run(bench: Bench, what: str, kind: type[F], count: int, plan: Plan) -> F:
    """In a process of its own, which has the second core, and the server that it starts the first."""
    folder = bench.new_folder(f"fleet-{what}")
    log = folder / "log"
    command = [sys.executable, "-m", "scoreboard.fleet", what, "--agents", str(count)]
    command += ["--rate", str(count * BEATS_PER_AGENT), "--windows", str(plan.windows), "--window", str(plan.window_s)]
    command += ["--tellings", str(plan.tellings), "--returns", str(plan.returns), "--folder", str(folder)]
    with bench.running(command, log) as process:
        try:
            status = process.wait(MEASURED_S)
        except subprocess.TimeoutExpired:
            status = None
    return _figures(kind, status, log)


def _figures(kind: type[F], status: int | None, log: Path) -> F:
    lines = log.read_text(errors="replace").splitlines() or [""]
    if status != 0:
        ended = "did not end" if status is None else f"ended with {status}"
        raise RuntimeError(f"{lines[-1]} (the run {ended})")
    return read(kind, json.loads(lines[-1]))
