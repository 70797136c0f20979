"""Workers that the kernel does not let go: torch's bound on Linux's uninterruptible sleep, state D."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

TIMEOUT_VARIABLE = "TORCHELASTIC_UNINTERRUPTIBLE_STATE_TIMEOUT"

logger = logging.getLogger(__name__)


def timeout_s(given: float | None, environ: Mapping[str, str]) -> float:
    """The bound in seconds, of an argument or else of the variable. 0: there is none, which is the default.

    As in torch, what is not above 0 or no number is none; of the latter a warning is given.
    """
    text = environ.get(TIMEOUT_VARIABLE) or "0"
    try:
        seconds = float(text if given is None else given)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        logger.warning("%s is no number of seconds: %s; there is no bound", TIMEOUT_VARIABLE, text)
        return 0.0
    return max(0.0, seconds)


class Sleep(NamedTuple):
    """A process's main thread in state D. ``switches`` is the same for as long as it is the same sleep."""

    switches: int


class Overslept(NamedTuple):
    """A worker that has been in one sleep for too long."""

    local_rank: int
    seconds: float


def read_sleep(pid: int, proc: Path = Path("/proc")) -> Sleep | None:
    """None: it is not in such a sleep, or is gone."""
    try:
        lines = (proc / f"{pid}/status").read_text().splitlines()
    except OSError:
        return None
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    if not told.get("State", "").strip().startswith("D"):
        return None
    return Sleep(sum(int(told[f"{kind}_ctxt_switches"]) for kind in ("voluntary", "nonvoluntary")))


class UninterruptibleWatch:
    """Looks at workers again and again.

    Only looks count: a sleep begins when it is first seen. If the worker ran between two of them, which the number of
    context switches tells, the later sleep is another one.
    """

    def __init__(self, timeout: float, read: Callable[[int], Sleep | None] = read_sleep) -> None:
        """``timeout`` in seconds; 0: nobody is looked at."""
        self._timeout = timeout
        self._read = read
        self._since: dict[int, tuple[Sleep, int]] = {}
        """The sleep and when it was first seen, by pid."""

    def look(self, pids: Mapping[int, int], now_ns: int) -> list[Overslept]:
        """Who sleeps too long. ``pids``: of those to look at, by local rank. ``now_ns`` is of any steady clock."""
        if not self._timeout:
            return []
        sleeps = {pid: sleep for pid in pids.values() if (sleep := self._read(pid)) is not None}
        before = self._since
        self._since = {
            pid: before[pid] if pid in before and before[pid][0] == sleep else (sleep, now_ns)
            for pid, sleep in sleeps.items()
        }
        return [
            Overslept(local_rank, seconds)
            for local_rank, pid in pids.items()
            if pid in self._since and (seconds := (now_ns - self._since[pid][1]) / 10**9) >= self._timeout
        ]
