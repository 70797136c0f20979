"""When workers began, as they say themselves, and when processes ended, as the kernel says: nothing is polled for."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scoreboard.losses.inbox import Inbox

SCRIPT = str(Path(__file__).parent / "worker.py")
PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Birth:
    """One worker of ``worker.py``. ``family``: its pid and those of the processes that it started."""

    job: str
    node: str
    round: int
    restart_count: int
    rank: int
    world_size: int
    family: list[int]
    steady_ns: int
    """On CLOCK_BOOTTIME."""
    wall_ns: int


class Births:
    """All that the inbox's workers say, sorted by job and round."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self._rounds: dict[str, dict[int, dict[int, Birth]]] = defaultdict(lambda: defaultdict(dict))

    def wait_whole(self, job: str, after: int, world_size: int, within_s: float = PATIENCE_S) -> list[Birth]:
        """Wait for the first whole round after that one that has so many workers, and give them by rank."""
        deadline = time.monotonic() + within_s
        while True:
            for number, workers in sorted(self._rounds[job].items()):
                if number > after and is_whole(list(workers.values()), world_size):
                    return [workers[rank] for rank in sorted(workers)]
            if not self._hear(deadline - time.monotonic()):
                raise AssertionError(f"{job}: no {world_size} workers began after round {after}: {self.counts(job)}")

    def counts(self, job: str) -> dict[int, int]:
        """How many workers of each round have begun by now."""
        while self._hear(0):
            pass
        return {number: len(workers) for number, workers in self._rounds[job].items()}

    def _hear(self, within_s: float) -> bool:
        said = self.inbox.receive(within_s)
        if said is None:
            return False
        birth = Birth(**said)
        self._rounds[birth.job][birth.round][birth.rank] = birth
        return True


def is_whole(workers: Sequence[Birth], world_size: int) -> bool:
    """Whether these are all workers of a round of this size."""
    return len(workers) == world_size and all(worker.world_size == world_size for worker in workers)


def last_ns(workers: Iterable[Birth]) -> int:
    """When the last of them began, on CLOCK_BOOTTIME."""
    return max(worker.steady_ns for worker in workers)


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def seconds(since_ns: int, until_ns: int) -> float:
    return (until_ns - since_ns) / 1e9


class Ends:
    """The ends of some processes. From :func:`watch_ends`."""

    def __init__(self, pidfds: Iterable[int]) -> None:
        self._left = set(pidfds)
        self._poll = select.poll()
        for fd in self._left:
            self._poll.register(fd, select.POLLIN)

    def wait_all(self, within_s: float = PATIENCE_S) -> int:
        """When the last of them had ended, on CLOCK_BOOTTIME; AssertionError if one lives on."""
        deadline = time.monotonic() + within_s
        while self._left:
            ended = self._poll.poll(max(deadline - time.monotonic(), 0) * 1000)
            if not ended:
                raise AssertionError(f"{len(self._left)} processes did not end within {within_s} s")
            for fd, _ in ended:
                self._poll.unregister(fd)
                self._left.discard(fd)
        return now_ns()


@contextmanager
def watch_ends(pids: Iterable[int]) -> Iterator[Ends]:
    """The processes must be alive."""
    with contextlib.ExitStack() as stack:
        fds = []
        for pid in pids:
            fds.append(os.pidfd_open(pid))
            stack.callback(os.close, fds[-1])
        yield Ends(fds)
