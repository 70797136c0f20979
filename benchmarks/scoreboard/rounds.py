"""N agents with a worker each: their rendezvous, and the round after one worker was SIGKILLed.

Beside torchrun every sample has agents of its own, and workers that cost next to nothing. :mod:`scoreboard.crews` says
when the clock of the rendezvous starts; it stops when the last worker has noted that it runs. Then all settle, the
worker of the highest rank is SIGKILLed, and the clock runs until N more workers have noted that they run. torchrun
looks at its workers every 0.1 s, its default.

Beside the floor (:mod:`scoreboard.floor`) workers are Python programs, the least that such can be, and the agents go on
from one sample to the next. The floor of the cheap workers is told as well, and held to nothing: a spawn of 1 ms leaves
two grpcio round trips and the Python of N agents in plain sight.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from scoreboard.bench import Bench
from scoreboard.commands import coordinator
from scoreboard.crews import Crew, RallypointCrew, TorchCrew
from scoreboard.figures import SECONDS, Faster, Row, WithinFloor
from scoreboard.floor import a_floor
from scoreboard.workers import PYTHON, SHELL

SIZES = (2, 4, 8)
QUICK_SIZES = (2,)
SETTLED_S = 0.5
"""The workers run. torchrun's agents look at them every 0.1 s."""

Recruit = Callable[[Bench, int, str, contextlib.ExitStack], Crew]


@dataclass
class Seen:
    """Seconds, and the restart counts of the workers of the round after."""

    rendezvous: list[float] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)
    restart_counts: list[int] = field(default_factory=list)


def rows(bench: Bench) -> Iterator[Row]:
    for size in QUICK_SIZES if bench.quick else SIZES:
        yield from _beside_torchrun(bench, size)
        yield _beside_the_floor(bench, size)


def _beside_torchrun(bench: Bench, size: int) -> Iterator[Row]:
    ours, torch = Seen(), Seen()
    bench.in_turns(
        lambda: _one_life(bench, _rallypoint, size, ours),
        lambda: _one_life(bench, _torch, size, torch),
        bench.pairs(quick=2),
    )
    with a_floor(bench, size, SHELL) as floor:
        least = [floor.once() for _ in range(bench.pairs())]
    figure = f"{size} agents up, rendezvous to the last worker's start"
    yield Row(figure, SECONDS, ours.rendezvous, (Faster(15),), torch.rendezvous)
    figure = f"worker SIGKILL to the last worker of the new round, {size} agents"
    counts = f"restart counts of the workers after it: ours {ours.restart_counts}, torchrun's {torch.restart_counts}"
    yield Row(figure, SECONDS, ours.recovery, (Faster(20),), torch.recovery, least, counts)


def _beside_the_floor(bench: Bench, size: int) -> Row:
    with contextlib.ExitStack() as ending:
        ending.callback(bench.sweep)
        crew = _rallypoint(bench, size, PYTHON, ending)
        for number in range(size):
            crew.start(number)
        crew.workers.wait_for(size)
        floor = ending.enter_context(a_floor(bench, size, PYTHON))
        ours, least = bench.in_turns(lambda: _settled_kill(crew, size), floor.once, bench.pairs(full=9, quick=3))
    figure = f"worker SIGKILL to the new round, {size} agents, Python workers"
    return Row(figure, SECONDS, ours, (WithinFloor(2),), "see above", least)


def _one_life(bench: Bench, recruit: Recruit, size: int, seen: Seen) -> float:
    """The agents of one job from their start to their end; says what its rendezvous took."""
    with contextlib.ExitStack() as ending:
        ending.callback(bench.sweep)
        crew = recruit(bench, size, SHELL, ending)
        for number in range(size):
            crew.start(number)
        began = max(note.at for note in crew.workers.wait_for(size))
        seen.rendezvous.append(began - max(crew.asked(number) for number in range(size)))
        seen.recovery.append(_settled_kill(crew, size))
        seen.restart_counts = sorted(note.restart_count for note in crew.workers.notes()[size:])
        return seen.rendezvous[-1]


def _settled_kill(crew: Crew, size: int) -> float:
    """SIGKILL one of a round that has run for a while; says what it took until the last of the next one ran."""
    time.sleep(SETTLED_S)
    before = crew.workers.notes()
    victim = max(before[-size:], key=lambda note: note.rank)
    began = time.time()
    os.kill(victim.pid, signal.SIGKILL)
    return max(note.at for note in crew.workers.wait_for(len(before) + size)[len(before) :]) - began


def _rallypoint(bench: Bench, size: int, script: str, ending: contextlib.ExitStack) -> Crew:
    folder = bench.new_folder("rallypoint")
    _, address = ending.enter_context(coordinator(bench, folder))
    return RallypointCrew(bench, folder, size, script, address, ending)


def _torch(bench: Bench, size: int, script: str, ending: contextlib.ExitStack) -> Crew:
    return TorchCrew(bench, bench.new_folder("torch"), size, script, ending)
