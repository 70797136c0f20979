"""Rendezvous of N clients over loopback: the first round, and all of them once more.

Both sides' clients are what an agent has for this, and only that: torch's DynamicRendezvousHandler on the c10d backend
(:mod:`.c10d`), our agent's core and stream (:mod:`.agents`); a process each, all forked from one that has imported what
they need, connected to their server, and rehearsed, each alone. The server has a process of its own.

N processes on one machine share its cores, and each has to run before the last is done: that is the clients' own time,
which N nodes would spend side by side. What the coordinator takes shows with clients that cost next to nothing, all in
one process on a core of their own (:mod:`.many`): they are held against the same peer too, and go on to N = 4096.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rallypoint.texts import counted
from scoreboard.bench import Bench
from scoreboard.figures import SECONDS, AtMost, Faster, Row, WithinFloor

FEW, SOME, MANY = 64, 192, 4096
QUICK = 32
FEW_REPEATS = 3
"""Of ours where there are no pairs: one of 4096 clients takes a quarter of a minute and has no peer, and beside 192 the
peer is measured once. More would take the time that the other suites need, and change little in a median."""
PATIENCE_S, QUICK_PATIENCE_S = 80, 30
"""Until the peer is given up in either phase: twice what 192 of it should need for the longer one."""
STUCK_S = 700
"""Whichever side takes longer for one measurement has failed."""
PHASES = (("first", "first round"), ("again", "once more"))

Samples = dict[str, Any]
"""What a measurement prints: seconds in lists, one for each repeat, and what else there is to tell."""


@dataclass
class Seen:
    """What one side's measurements printed: seconds by name, and all that was told each time."""

    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    told: list[Samples] = field(default_factory=list)

    def add(self, samples: Samples) -> float:
        for name, seconds in samples.items():
            if isinstance(seconds, list):
                self.seconds[name] += seconds
        self.told.append(samples)
        return float(samples["first"][-1])


def rows(bench: Bench) -> Iterator[Row]:
    if bench.quick:
        yield from Contest(bench, QUICK, bench.pairs()).rows(3)
        return
    few = Contest(bench, FEW, bench.pairs())
    yield from few.rows(20)
    yield from _alone(few.cheap, _measure("many", MANY, FEW_REPEATS))
    # The peer takes a minute a time, and is too far away for chance to decide.
    yield from Contest(bench, SOME, 1).rows(100)


class Contest:
    """So many clients of torch's and of ours, of these in one process too, in turns; of one pair ours three times."""

    def __init__(self, bench: Bench, count: int, pairs: int) -> None:
        self._count = count
        self._repeats = FEW_REPEATS if pairs == 1 else 1
        self.each, self.cheap, self.torch = Seen(), Seen(), Seen()
        patience_s = bench.pick(PATIENCE_S, QUICK_PATIENCE_S)
        bench.in_turns(self._measure_ours, lambda: self.torch.add(_measure("c10d", count, patience_s)), pairs)

    def _measure_ours(self) -> float:
        self.cheap.add(_measure("many", self._count, self._repeats))
        return self.each.add(_measure("agents", self._count, self._repeats))

    def rows(self, times: float) -> Iterator[Row]:
        note = _of_torch(self.torch.told)
        for phase, words in PHASES:
            peer = self.torch.seconds[phase]
            for how, ours in (("a process each", self.each), ("ours in one process", self.cheap)):
                what = f"rendezvous of {self._count} clients, {how}: {words}"
                yield Row(what, SECONDS, ours.seconds[phase], (Faster(times),), peer, note=note)
                note = ""


def _of_torch(told: list[Samples]) -> str:
    """How often it was measured, and what its clients did in the first round and once more."""
    many = f"torch's was measured {counted(len(told), 'time')}"
    if late := sum(samples["gave_up"] for samples in told):
        return f"{many}, {late} of them in vain: then the time after which it was given up counts"
    calls = statistics.median(samples["compare_and_sets"] for samples in told)
    sent = statistics.median(samples["sent_bytes"] for samples in told)
    return f"{many}; its clients wrote {calls:,.0f} compare-and-sets, {sent / 1e6:,.0f} MB, in both rounds"


def _alone(few: Seen, many: Samples) -> Iterator[Row]:
    for phase, words in PHASES:
        what = f"rendezvous of {MANY} clients, in one process: {words}"
        yield Row(what, SECONDS, many[phase], (AtMost(2),), "never: 256 time out")
        yield Row(
            f"coordinator's CPU time for each of {MANY} clients: {words}",
            SECONDS,
            [cpu / MANY for cpu in many[f"{phase}_cpu"]],
            (WithinFloor(1.5),),
            "no such thing",
            [cpu / FEW for cpu in few.seconds[f"{phase}_cpu"]],
            f"the floor is what it takes for each of {FEW}",
        )


def _measure(module: str, count: int, second: int) -> Samples:
    """Run one of the modules here, with its two arguments. RuntimeError with what it said if it fails."""
    argv = [sys.executable, "-P", str(Path(__file__).with_name(f"{module}.py")), str(count), str(second)]
    began = time.monotonic()
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=STUCK_S, start_new_session=True, check=False)
    print(f"{count} clients, {module}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if ran.returncode:
        raise RuntimeError(f"{count} clients, {module}: exit status {ran.returncode}\n{ran.stderr}")
    samples: Samples = json.loads(ran.stdout)
    return samples
