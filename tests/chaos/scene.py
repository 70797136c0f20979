"""One fault's scene: the cluster as it was before, whom the fault hits, and the clock of what is timed."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from chaos.fleet import JOB, Fleet, Health, now_ns
from chaos.lives import Life
from rallypoint.v1 import job_service_pb2, types_pb2
from support.cluster import wait_gone

PAUSE_S = 1.0
"""A short stop: the fence, which strikes 4 s after the last contact, must not notice."""

SHORT_S = 2.0
"""What was meant to be short and took longer than this, on a busy machine, may have cost a lease."""

Timings = dict[str, list[float]]
"""Seconds, by what was timed."""


class Scene:
    def __init__(self, fleet: Fleet, rng: Random, timings: Timings | None = None) -> None:
        self.fleet = fleet
        self.rng = rng
        self.timings: Timings = defaultdict(list) if timings is None else timings
        self.before: Health = fleet.wait_healthy()
        self.node: str = rng.choice(sorted(fleet.agents))
        self.was_short = True
        """Whether every pause that was meant to be short was."""
        self.is_timed = False
        """Only what happens to a cluster at rest is: in other phases there is no telling which round is the next."""

    @property
    def keeper(self) -> int:
        return self.before.keepers[self.node]

    def worker(self) -> Life:
        """One of the newest workers of the node."""
        lives = self.fleet.lives
        newest = max(life.round for life in lives.all() if life.node == self.node)
        return self.rng.choice([life for life in lives.workers(newest) if life.node == self.node])

    @property
    def whose_agent(self) -> str:
        return "rank 0's agent" if self.node == self.before.nodes[0] else "agent"

    def families(self, node: str = "") -> set[int]:
        """The processes of the newest workers, and of their children, on that node or on all."""
        lives = self.fleet.lives.all()
        return {life.pid for life in lives if life.round >= self.before.round and node in ("", life.node)}

    def pause(self, since_ns: int) -> None:
        """Let a short stop that began then last for as long as it should."""
        time.sleep(max(PAUSE_S - (now_ns() - since_ns) / 1e9, 0))

    def paused(self, since_ns: int) -> None:
        """The short stop is over: note how long it was."""
        self.was_short &= now_ns() - since_ns < SHORT_S * 1e9

    def note(self, what: str, since_ns: int, until_ns: int | None = None) -> None:
        if self.is_timed:
            self.timings[what].append(((until_ns or now_ns()) - since_ns) / 1e9)

    def note_next_round(self, what: str, since_ns: int) -> None:
        """Wait until all workers of a next round have begun, and note when the last one did."""
        if not self.is_timed:
            return
        workers = self.fleet.wait_complete(self.before.round + 1)
        self.note(what, since_ns, max(life.born_ns for life in workers))

    def wait_lost(self, what: str, since_ns: int) -> None:
        """Wait until the node is counted as lost, and note when the others were in the next round."""

        def lost() -> bool:
            found = self.fleet.nodes().get(self.node)
            return found is not None and found.state == job_service_pb2.NODE_STATE_LOST

        self.fleet.wait(lost, f"{self.node} is not counted as lost")
        self.note_next_round(f"{what} -> the other three in the next round", since_ns)

    def note_all_gone(self, what: str, since_ns: int, pids: set[int]) -> None:
        wait_gone(pids)
        self.note(what, since_ns)


# --- the phase of the job in which a fault strikes


@contextmanager
def running(scene: Scene) -> Iterator[None]:
    """All is well."""
    scene.is_timed = True
    yield


@contextmanager
def starting(scene: Scene) -> Iterator[None]:
    """A round has been formed, and the first of its workers, on the node, has just begun."""
    fleet, first = scene.fleet, scene.before.round + 1
    fleet.cluster.restart(JOB)
    fleet.wait(lambda: fleet.lives.workers(first), f"no worker of round {first} began")
    scene.node = fleet.lives.workers(first)[0].node
    yield


@contextmanager
def stopping(scene: Scene) -> Iterator[None]:
    """Every worker has got SIGTERM, and none has ended yet."""
    fleet = scene.fleet
    linger = fleet.records / "linger"
    workers = fleet.lives.workers(scene.before.round)
    linger.touch()
    fleet.cluster.restart(JOB)
    fleet.wait(lambda: all(map(fleet.lives.has_heard_of_its_end, workers)), "not every worker got SIGTERM")
    try:
        yield
    finally:
        linger.unlink()


@contextmanager
def gathering(scene: Scene) -> Iterator[None]:
    """Two nodes have left, so that too few are there for a round."""
    fleet = scene.fleet
    leaving = scene.rng.sample(sorted(fleet.agents), 2)
    for node in leaving:
        fleet.end(node, signal.SIGTERM)
    scene.node = scene.rng.choice(sorted(fleet.agents))
    fleet.wait(lambda: fleet.is_in(types_pb2.JOB_STATE_GATHERING), "the job does not gather")
    yield
    fleet.start_agents(*leaving)
