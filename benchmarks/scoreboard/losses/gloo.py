"""Jobs of three gloo workers, one of which is killed: are they all back after exactly one restart?

Back means: one more start of each worker, and a world that works. In a job of torchrun's each node counts its restarts
by itself, so their counts are not asked for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scoreboard.losses.inbox import Inbox
from support.cluster import Process, ProcessCluster
from support.ports import free_range
from support.processes import MARK_VARIABLE, pids_with_mark, wait_until

NODES = ("node-a", "node-b", "node-c")
WORKER = str(Path(__file__).parent / "gloo_worker.py")
COMMON = ("--nnodes", "3", "--nproc-per-node", "1", "--max-restarts", "1000", "--rdzv-id", "gloo")
PATIENCE_S = 45.0
"""Both launchers' workers take a few seconds to import torch and to meet."""

Launch = Callable[[ProcessCluster, Inbox], list[Process]]


def rallypoint(cluster: ProcessCluster, inbox: Inbox) -> list[Process]:
    cluster.coordinator()
    env = {"GLOO_SOCKET_IFNAME": "lo", **inbox.env}
    return [cluster.agent(node, *COMMON, WORKER, **{**env, "NODE": node}) for node in NODES]


def torchrun(cluster: ProcessCluster, inbox: Inbox) -> list[Process]:
    (port,) = free_range(1)
    argv = [sys.executable, "-m", "torch.distributed.run", *COMMON, "--rdzv-backend", "c10d"]
    argv += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1", WORKER]
    env = {**os.environ, MARK_VARIABLE: cluster.mark, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", **inbox.env}
    launched = [Process(node, argv, cluster.folder, {**env, "NODE": node}) for node in NODES]
    cluster.processes.extend(launched)
    return launched


def recoveries(launch: Launch, new_folder: Callable[[], Path], at_least: int, within_s: float = 0.0) -> list[bool]:
    """For each SIGKILL whether all came back after one restart: so many, and more while there is time.

    A job that did not come back is not used again.
    """
    deadline, recovered = time.monotonic() + within_s, list[bool]()

    def go_on() -> bool:
        return len(recovered) < at_least or time.monotonic() < deadline

    while go_on():
        with _job(launch, new_folder()) as job:
            while go_on():
                recovered.append(job.lose_worker(len(recovered) % len(NODES)))
                if not recovered[-1]:
                    break
    return recovered


@contextmanager
def _job(launch: Launch, folder: Path) -> Iterator[_Job]:
    with Inbox(folder) as inbox, ProcessCluster(folder) as cluster:
        try:
            job = _Job(inbox, launch(cluster, inbox))
            job.begin()
            yield job
        finally:
            if launch is torchrun:
                _kill_all(cluster)


def _kill_all(cluster: ProcessCluster) -> None:
    """torchrun, ended while it re-forms, leaves workers behind: not what is counted here."""

    def none_left() -> bool:
        left = pids_with_mark(cluster.mark)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(none_left)


class _Job:
    def __init__(self, inbox: Inbox, launched: list[Process]) -> None:
        self._inbox = inbox
        self._launched = launched
        self._pids: dict[int, int] = {}
        """The workers', by rank."""

    def begin(self) -> None:
        if not self._all_work_after_one_start():
            raise AssertionError("\n".join(["the job does not begin", *(process.output for process in self._launched)]))

    def lose_worker(self, rank: int) -> bool:
        os.kill(self._pids[rank], signal.SIGKILL)
        return self._all_work_after_one_start()

    def _all_work_after_one_start(self) -> bool:
        """Wait until a next worker of each node works; False once one was started twice, or in the end."""
        deadline = time.monotonic() + PATIENCE_S
        attempt = Attempt(len(NODES))
        while attempt.verdict is None:
            said = self._inbox.receive(deadline - time.monotonic())
            if said is None:
                return False
            attempt.hear(said)
        self._pids = attempt.working
        return attempt.verdict


class Attempt:
    """From words of workers to a verdict: None while it is open. Pure."""

    def __init__(self, workers: int) -> None:
        self.working: dict[int, int] = {}
        """The pids of those whose world works, by rank."""
        self._workers = workers
        self._starts: Counter[str] = Counter()

    def hear(self, said: dict[str, Any]) -> None:
        if said["word"] == "began":
            self._starts[said["node"]] += 1
        else:
            self.working[said["rank"]] = said["pid"]

    @property
    def verdict(self) -> bool | None:
        if any(count > 1 for count in self._starts.values()):
            return False
        return True if len(self.working) == self._workers else None
