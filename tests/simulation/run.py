"""Runs seeds and tells what they were like; one seed alone prints its transcript.

python -m simulation.run --seeds 300 --base 0
python -m simulation.run --seed 42
python -m simulation.run --seeds 300 --with "lost journal"
python -m simulation.run --seeds 20000 --jobs 2
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context

from simulation.options import FaultKind, Options, RequestKind, draw_options
from simulation.simulation import Result, run_seed
from simulation.transcript import Transcript
from simulation.world import World

INTERRUPTED = 128 + signal.SIGINT


def replay_command(seed: int, kind: FaultKind | None = None) -> str:
    """What shows a seed's transcript."""
    command = f"PYTHONPATH=tests .venv/bin/python -m simulation.run --seed {seed}"
    return command if kind is None else f"{command} --with '{kind}'"


def with_fault(seed: int, kind: FaultKind | None) -> Options | None:
    """What the seed gives, and this fault besides. None: what the seed gives."""
    if kind is None:
        return None
    options = draw_options(World(seed))
    return replace(options, fault_weights={kind: 1, **options.fault_weights})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation.run", description="Simulate seeds.")
    parser.add_argument("--seeds", type=int, default=300, help="how many (default: 300)")
    parser.add_argument("--base", type=int, default=0, help="the first (default: 0)")
    parser.add_argument("--seed", type=int, help="run this one, and print its transcript")
    parser.add_argument("--with", type=FaultKind, dest="kind", help="with this fault in every seed: 'lost journal'")
    parser.add_argument("--jobs", type=int, default=1, help="so many seeds at a time, each in a process (default: 1)")
    args = parser.parse_args()
    if args.seed is None:
        return run_many(range(args.base, args.base + args.seeds), args.kind, args.jobs)
    return run_one(args.seed, args.kind)


def run_one(seed: int, kind: FaultKind | None = None) -> int:
    result = run_seed(seed, Transcript(sys.stdout), with_fault(seed, kind))
    if result.violation is None:
        print(f"seed {seed}: no violation in {result.events} events")
        return 0
    print(f"seed {seed}: {result.violation}")
    if result.violation.__cause__ is not None:
        raise result.violation.__cause__
    return 1


def run_many(seeds: Iterable[int], kind: FaultKind | None = None, jobs: int = 1) -> int:
    """Each violation is told as it is found. Ctrl-C ends it all, and says what was seen so far."""
    total, interrupted = Total(), False
    began_s = time.monotonic()
    try:
        for result in results(seeds, kind, jobs):
            total.add(result)
            if result.violation is not None:
                print(f"seed {result.seed}: {result.violation}\n    {replay_command(result.seed, kind)}", flush=True)
    except KeyboardInterrupt:
        interrupted = True
    print(total.summary(time.monotonic() - began_s))
    return INTERRUPTED if interrupted else int(total.violations > 0)


def results(seeds: Iterable[int], kind: FaultKind | None, jobs: int) -> Iterator[Result]:
    """Of all seeds; in their order only if there is one job."""
    if jobs == 1:
        yield from (run_with(seed, kind) for seed in seeds)
        return
    # Workers are started from scratch: what this process has open is none of theirs.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), end_at_interrupt)
    try:
        runs = [pool.submit(run_with, seed, kind) for seed in seeds]
        for run in as_completed(runs):
            yield run.result()
    finally:
        pool.shutdown(cancel_futures=True)


def run_with(seed: int, kind: FaultKind | None) -> Result:
    return run_seed(seed, options=with_fault(seed, kind))


def end_at_interrupt() -> None:
    """Ctrl-C goes to every process of the terminal's job: the workers end at it without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Total:
    """Of many runs."""

    def __init__(self) -> None:
        self.seeds = self.violations = self.events = self.virtual_ms = self.agents = self.rounds = 0
        self.snapshots = self.watches = 0
        self.faults: Counter[FaultKind] = Counter()
        self.requests: Counter[RequestKind] = Counter()
        self.lives: Counter[str] = Counter()

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.violations += result.violation is not None
        self.events += result.events
        self.virtual_ms += result.virtual_ms
        self.agents += result.agents
        self.rounds += result.rounds
        self.snapshots += result.snapshots
        self.watches += result.watches
        self.faults += result.faults
        self.requests += result.requests
        self.lives += result.lives

    def summary(self, took_s: float) -> str:
        rate, hours = self.seeds * 60 / max(took_s, 0.001), self.virtual_ms / 3_600_000
        return "\n".join(
            (
                f"{rate:.0f} seeds per minute, {self.events} events in {hours:.1f} virtual hours",
                f"{self.agents} agents, {self.rounds} rounds, {sum(self.lives.values())} lives: {_counted(self.lives)}",
                f"{sum(self.faults.values())} faults: {_counted(self.faults)}",
                f"{sum(self.requests.values())} requests: {_counted(self.requests)}",
                f"{self.snapshots} snapshots, {self.watches} watches",
                f"{self.seeds} seeds, {self.violations} violations",
            )
        )


def _counted(counts: Mapping[str, int] | Mapping[FaultKind, int] | Mapping[RequestKind, int]) -> str:
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in by_count)


if __name__ == "__main__":
    sys.exit(main())
