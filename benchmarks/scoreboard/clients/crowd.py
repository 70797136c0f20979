"""Processes forked from this one that do what they are told at one instant, and tell when they had done it.

A fork shares what is imported, so that 200 clients fit into memory and no import is measured. It must be made while
this process has a single thread: a fork copies no other, and what one held at that moment stays locked for ever.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import Any, Protocol

from rallypoint_agent.keeper import linux

REHEARSALS = 2
"""Each under a name of its own. The first one copies most of what is shared since the fork, the second nearly all."""
LEAD_S = 0.5
"""Orders are out so long before the instant for which they are: everybody waits for it, asleep, and what they and their
server did before has come to rest."""

_COLLECT = "collect garbage"


class Client(Protocol):
    """What one process of the crowd is. It is made in that process."""

    def act(self, order: str, *details: Any) -> object:
        """Do what is ordered, and return when that is done, with what there is to tell of it."""


class CrowdFailed(Exception):
    """A client could not do what it was told."""


class CrowdLate(CrowdFailed):
    """Or was not done in time: the crowd is of no more use."""


class Crowd:
    """Use it through :func:`crowd`."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def all_do(self, order: str, *details: Any, timeout_s: float) -> list[object]:
        """Have everybody do it as soon as they can: what each told, by number. Raises CrowdFailed."""
        return [told for _, told in self._order(time.monotonic(), order, details, timeout_s)]

    def time(self, order: str, *details: Any, timeout_s: float) -> list[float]:
        """Have everybody do it at one instant: for how many seconds after it each was at it. Raises CrowdFailed.

        Garbage that is there before is collected before.
        """
        self.all_do(_COLLECT, timeout_s=timeout_s)
        at = time.monotonic() + LEAD_S
        return [done_at - at for done_at, _ in self._order(at, order, details, LEAD_S + timeout_s)]

    def _order(self, at: float, order: str, details: tuple[Any, ...], timeout_s: float) -> list[tuple[float, object]]:
        deadline = time.monotonic() + timeout_s
        for pipe in self._pipes:
            pipe.send((at, order, details))
        # One after the other: what this process does meanwhile is time that the clients lack.
        return [_answer(pipe, order, deadline) for pipe in self._pipes]


def _answer(pipe: Connection, order: str, deadline: float) -> tuple[float, object]:
    if not pipe.poll(max(deadline - time.monotonic(), 0)):
        raise CrowdLate(f"a client is still at {order!r}")
    try:
        problem, done_at, told = pipe.recv()
    except EOFError:
        raise CrowdFailed(f"a client ended amid {order!r}") from None
    if problem:
        raise CrowdFailed(f"a client failed at {order!r}:\n{problem}")
    return done_at, told


@contextmanager
def crowd(size: int, new_client: Callable[[int], Client]) -> Iterator[Crowd]:
    """So many clients, a process each. They end with this context, and with this process, however it ends."""
    threads = thread_count()
    if threads != 1:
        raise RuntimeError(f"a crowd is forked by a process of one thread, and this one has {threads}")
    # Else the first collection in each of them copies all the memory that they share.
    gc.collect()
    gc.freeze()
    context = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    processes: list[ForkProcess] = []
    try:
        for number in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_live, args=(number, new_client, theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        yield Crowd(pipes)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def thread_count() -> int:
    """Of this process; Python does not know of all."""
    return len(os.listdir("/proc/self/task"))


def _live(number: int, new_client: Callable[[int], Client], pipe: Connection, parent: int) -> None:
    linux.die_with_parent(parent)
    client = new_client(number)
    while True:
        at, order, details = pipe.recv()
        time.sleep(max(at - time.monotonic(), 0))
        try:
            told = gc.collect() if order == _COLLECT else client.act(order, *details)
            pipe.send(("", time.monotonic(), told))
        except Exception:
            pipe.send((traceback.format_exc(), 0.0, None))
