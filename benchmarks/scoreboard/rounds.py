"""N agents with a worker each: their rendezvous, and the round after one worker was SIGKILLed.

Every sample has agents of its own. :mod:`scoreboard.crews` says when the clock of the rendezvous starts; it stops when
the last worker has noted that it runs. Then all settle, the worker of the highest rank is SIGKILLed, and the clock runs
until N more workers have noted that they run. torchrun looks at its workers every 0.1 s, its default.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from scoreboard import floor
from scoreboard.bench import Bench
from scoreboard.commands import coordinator
from scoreboard.crews import Crew, RallypointCrew, TorchCrew
from scoreboard.figures import SECONDS, Faster, Row, WithinFloor

SIZES = (2, 4, 8)
QUICK_SIZES = (4,)
SETTLED_S = 1.5
"""Longer than what torchrun's agents sleep at most before they look at the rendezvous again, 1 s."""

Recruit = Callable[[Bench, int, contextlib.ExitStack], Crew]


@dataclass
class Seen:
    """Seconds, and the restart counts of the workers of the round after."""

    rendezvous: list[float] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)
    restart_counts: list[int] = field(default_factory=list)


def rows(bench: Bench) -> Iterator[Row]:
    for size in QUICK_SIZES if bench.quick else SIZES:
        yield from _rows_of(bench, size)


def _rows_of(bench: Bench, size: int) -> Iterator[Row]:
    ours, torch = Seen(), Seen()
    least = floor.measure(bench, size, bench.pairs())
    bench.in_turns(
        lambda: _one_life(bench, _rallypoint, size, ours),
        lambda: _one_life(bench, _torch, size, torch),
        bench.pairs(),
    )
    yield Row(
        f"{size} agents up, rendezvous to the last worker's start",
        SECONDS,
        ours.rendezvous,
        (Faster(15),),
        torch.rendezvous,
    )
    yield Row(
        f"worker SIGKILL to the last worker of the new round, {size} agents",
        SECONDS,
        ours.recovery,
        (Faster(20), WithinFloor(2)),
        torch.recovery,
        least,
        f"restart counts of the workers after it: ours {ours.restart_counts}, torchrun's {torch.restart_counts}",
    )


def _one_life(bench: Bench, recruit: Recruit, size: int, seen: Seen) -> float:
    """The agents of one job from their start to their end; says what its rendezvous took."""
    with contextlib.ExitStack() as ending:
        ending.callback(bench.sweep)
        crew = recruit(bench, size, ending)
        _start_all(crew, size)
        seen.rendezvous.append(max(note.at for note in crew.workers.wait_for(size)) - crew.asked(size - 1))
        time.sleep(SETTLED_S)
        seen.recovery.append(_kill_one(crew, size))
        seen.restart_counts = sorted(note.restart_count for note in crew.workers.notes()[size:])
        return seen.rendezvous[-1]


def _start_all(crew: Crew, size: int) -> None:
    """The last one once all the others have waited for a while."""
    for number in range(size - 1):
        crew.start(number)
        if number == 0:
            crew.asked(0)  # torchrun's serves the store of the others
    for number in range(size - 1):
        crew.asked(number)
    time.sleep(SETTLED_S)
    crew.start(size - 1)


def _kill_one(crew: Crew, size: int) -> float:
    victim = max(crew.workers.notes(), key=lambda note: note.rank)
    began = time.time()
    os.kill(victim.pid, signal.SIGKILL)
    return max(note.at for note in crew.workers.wait_for(2 * size)[size:]) - began


def _rallypoint(bench: Bench, size: int, ending: contextlib.ExitStack) -> Crew:
    folder = bench.new_folder("rallypoint")
    _, address = ending.enter_context(coordinator(bench, folder))
    return RallypointCrew(bench, folder, size, address, ending)


def _torch(bench: Bench, size: int, ending: contextlib.ExitStack) -> Crew:
    return TorchCrew(bench, bench.new_folder("torch"), size, ending)
