"""One job under fire: a thread that strikes it, waits until it is at rest again, and sees what that cost."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

from soak.faults import FAULTS, NOTHING
from soak.ledger import Price, Rest, overcharged
from soak.view import PATIENCE_S, View
from support.cluster import Process, ProcessCluster
from support.processes import pids_with_mark

LOOK_EVERY_S = 0.25
FLAGS = ("--max-restarts", "1000000", "--shutdown-timeout", "5s", "--last-call-timeout", "60s")
WORKER = ("--no-python", "sleep", "infinity")

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What all jobs of a run have in common. ``gap_s``: between two faults of one job, on average."""

    cluster: ProcessCluster
    view: View
    stop: threading.Event
    gap_s: float


class SoakJob:
    """``size`` nodes, of which half are enough. The first one's agent is never struck, so that it can be looked at."""

    def __init__(self, setting: Setting, name: str, size: int, rng: Random) -> None:
        self.setting = setting
        self.view = setting.view
        self.name = name
        self.size = size
        self.rng = rng
        self.struck: Counter[str] = Counter()
        self.charged = 0
        """Restarts, by the prices of what struck it."""
        self.restart_count = 0
        """What it really was when it was at rest last."""
        self.wrong: list[str] = []
        self._nodes = [f"{name}-{number}" for number in range(size)]
        self._agents: dict[str, Process] = {}

    # --- nodes

    def start_all(self) -> None:
        for node in self._nodes:
            self.start(node)

    def start(self, node: str) -> None:
        flags = ("--rdzv-id", self.name, "--nnodes", f"{max(self.size // 2, 1)}:{self.size}", *FLAGS, *WORKER)
        self._agents[node] = self.setting.cluster.agent(node, *flags)

    def end(self, node: str, number: int) -> None:
        self._agents[node].signal(number)
        self.wait_end(node)

    def wait_end(self, node: str) -> None:
        self._agents.pop(node).wait(PATIENCE_S)

    def wait_all_ended(self) -> None:
        for node in list(self._agents):
            self.wait_end(node)

    def replace(self, node: str, number: int) -> None:
        self.end(node, number)
        self.start(node)

    def some_node(self) -> str:
        return self.rng.choice(self._nodes[1:])

    def agent(self, node: str) -> int:
        return self._agents[node].pid

    def signal(self, number: int, *pids: int) -> None:
        """To processes of this run, in a row, and to no other that has got one's pid."""
        if ended := set(pids) - pids_with_mark(self.setting.cluster.mark):
            raise AssertionError(f"{sorted(ended)} have ended, and nobody struck them")
        os.kill(pids[0], number)
        for pid in pids[1:]:
            with contextlib.suppress(ProcessLookupError):  # a worker's end is the end of the others
                os.kill(pid, number)

    @property
    def untouched(self) -> str:
        """The node whose agent and keeper are never struck; its workers are."""
        return self._nodes[0]

    def keeper(self, node: str) -> int:
        agent = self.agent(node)
        (pid,) = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
        return int(pid)

    # --- waiting

    def wait_rest(self, after: int = -1) -> Rest:
        """Wait until the job is at rest in a round after that one; AssertionError with what is missing."""
        seen = [""]

        def look() -> Rest | None:
            found = self.view.rest(self.name, self.size, after)
            if isinstance(found, Rest):
                return found
            seen[0] = found
            return None

        try:
            return _wait(look)
        except AssertionError:
            raise AssertionError(f"{self.name} does not come to rest: {seen[0]}") from None

    def wait_round(self, number: int, nodes: int) -> None:
        """Wait until a round runs, that one or a later one, with so many nodes."""

        def runs() -> bool:
            job = self.view.job(self.name)
            return job is not None and job.round >= number and job.participant_count == nodes

        _wait(runs)

    # --- the thread

    def run(self) -> None:
        """Strike until told to stop; a fault that costs what it should not is noted, and the next one follows."""
        try:
            rest = self.wait_rest()
            while not self.setting.stop.wait(self.rng.expovariate(1 / self.setting.gap_s)):
                rest = self._strike(rest)
            self._judge("nothing", NOTHING, rest, self.wait_rest(rest.round - 1))
        except Exception as error:
            self._complain(f"{type(error).__name__}: {error}")

    def _strike(self, before: Rest) -> Rest:
        (name,) = self.rng.choices(list(FAULTS), [fault.weight for fault in FAULTS.values()])
        fault = FAULTS[name]
        fault.strike(self, before)
        after = self.wait_rest(before.round - (0 in fault.price.rounds))
        self.struck[name] += 1
        self.charged += fault.price.charged
        self.restart_count = after.restart_count
        self._judge(name, fault.price, before, after)
        return after

    def _judge(self, what: str, price: Price, before: Rest, after: Rest) -> None:
        for wrong in overcharged(price, before, after):
            self._complain(f"{what} in round {before.round}: {wrong}")

    def _complain(self, wrong: str) -> None:
        """At once, so that a run that is interrupted has told of it too."""
        self.wrong.append(f"{self.name}, {time.strftime('%H:%M:%S')}: {wrong}")
        print(f"WRONG: {self.wrong[-1]}", file=sys.stderr, flush=True)


class Turnover:
    """Small jobs that end well, one after another: lives that the coordinator is to forget."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.ended = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self._setting.stop.wait(self._setting.gap_s):
            flags = ("--rdzv-id", f"short-{self.ended}", "--nnodes", "2", "--no-python", "true")
            agents = [self._setting.cluster.agent(f"short-node-{number}", *flags) for number in range(2)]
            statuses = [agent.wait(PATIENCE_S) for agent in agents]
            self.ended += 1
            if any(statuses):
                self.wrong.append(f"short-{self.ended - 1} ended with {statuses}")


def _wait(look: Callable[[], T | None]) -> T:
    """Ask until the answer is true; AssertionError in the end."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE_S} s")
        time.sleep(LOOK_EVERY_S)
    return answer
