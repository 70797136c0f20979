"""One agent: from its start to its worker's exec, and the memory that it and a coordinator take.

The instants are the one just before the launcher is spawned, and the one that the worker's first command notes. Both
launchers run the same worker, with ``--no-python``. "Coordinator already up" is torchrun's c10d backend with a store
that is there before it, served by a process that has imported torch already; ``--standalone`` is both launchers' own.
Launchers take turns, so nothing is loaded for the first time but in the first turn, which is not counted.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psutil

from scoreboard.bench import Bench
from scoreboard.commands import RALLYPOINT, TORCHRUN, coordinator, torch_store
from scoreboard.figures import MEBIBYTES, SECONDS, AtMost, Faster, Row
from scoreboard.workers import Workers

SETTLED_S = 1.0
"""So long after its worker began an agent's memory is looked at: what it does at the start is done."""


@dataclass
class Launches:
    """What was seen of the launches of one launcher: seconds, and MiB of the agent and of its keeper."""

    took: list[float] = field(default_factory=list)
    agent: list[float] = field(default_factory=list)
    keeper: list[float] = field(default_factory=list)


def rows(bench: Bench) -> Iterator[Row]:
    folder = bench.new_folder("launch")
    pairs = bench.pairs()
    with coordinator(bench, folder) as (process, address), torch_store(bench, folder) as store:
        idle = [_resident(process.pid)]
        up = ("--coordinator", address, "--rdzv-id")
        c10d = ("--rdzv-backend", "c10d", "--rdzv-endpoint", store, "--rdzv-conf", "is_host=0", "--rdzv-id")
        ours, torch = _side_by_side(bench, up, c10d, pairs)
    yield Row("start to worker exec, coordinator up", SECONDS, ours.took, (Faster(8),), torch.took)
    alone, torch_alone = _side_by_side(bench, ("--standalone", "--rdzv-id"), ("--standalone", "--rdzv-id"), pairs)
    yield Row("start to worker exec, --standalone", SECONDS, alone.took, (Faster(4),), torch_alone.took)
    yield Row("agent's RSS, its keeper apart", MEBIBYTES, ours.agent, (AtMost(40),), torch.agent)
    yield Row("keeper's RSS", MEBIBYTES, ours.keeper, (AtMost(12),), "no such thing")
    yield Row("coordinator's RSS, idle", MEBIBYTES, idle, (AtMost(55),), "no such thing")


def _side_by_side(bench: Bench, ours: Sequence[str], torch: Sequence[str], pairs: int) -> tuple[Launches, Launches]:
    """Launch both with these flags, to which a job's name of its own is added each time."""
    seen = Launches(), Launches()
    for command in ([*RALLYPOINT, "run", *ours], [*TORCHRUN, *torch]):
        _launch(bench, command, Launches())
    bench.in_turns(
        lambda: _launch(bench, [*RALLYPOINT, "run", *ours], seen[0]),
        lambda: _launch(bench, [*TORCHRUN, *torch], seen[1]),
        pairs,
    )
    return seen


def _launch(bench: Bench, command: Sequence[str], seen: Launches) -> float:
    folder = bench.new_folder("one")
    workers = Workers(folder)
    began = time.time()
    with bench.running([*command, uuid.uuid4().hex, "--no-python", *workers.command], folder / "log") as popen:
        note = workers.wait_for(1)[0]
        time.sleep(SETTLED_S)
        seen.took.append(note.at - began)
        seen.agent.append(_resident(popen.pid))
        seen.keeper += [_resident(pid) for pid in _keepers(popen.pid)]
        popen.terminate()
        popen.wait(60)
    return note.at - began


def _keepers(agent: int) -> list[int]:
    """The agent's children that are its keeper; torchrun has none."""
    return [child.pid for child in psutil.Process(agent).children() if "keeper" in " ".join(child.cmdline())]


def _resident(pid: int) -> float:
    """What the process has in memory, shared pages included, in MiB."""
    return psutil.Process(pid).memory_info().rss / 2**20
