"""What a suite is given: how much to measure, a folder, and processes that do not outlive the run.

Every process that the run starts inherits one environment variable. After each suite, and however the run ends, what
has it is killed by pid; so whatever a suite or its peer leaves behind is gone too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

MARK_VARIABLE = "RALLYPOINT_BENCH_MARK"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PAIRS = 5


class Bench:
    """One run of the scoreboard. Made by :func:`a_bench`."""

    def __init__(self, quick: bool, folder: Path, mark: str) -> None:
        self.quick = quick
        self.folder = folder
        self._mark = f"{MARK_VARIABLE}={mark}".encode()

    def pick(self, full: int, quick: int) -> int:
        """The first in a full run, the second in a quick one."""
        return quick if self.quick else full

    def pairs(self, full: int = PAIRS, quick: int = 3) -> int:
        """How many samples of each side a row should have; in a full run PAIRS at least."""
        assert full >= PAIRS
        return self.pick(full, quick)

    def in_turns(
        self, ours: Callable[[], float], peer: Callable[[], float], count: int
    ) -> tuple[list[float], list[float]]:
        """So many samples of each, so that what else the machine does falls on both; each begins every other turn."""
        took: tuple[list[float], list[float]] = ([], [])
        for turn in range(count):
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                took[side].append((ours, peer)[side]())
        return took

    def new_folder(self, name: str) -> Path:
        """An empty one, which goes with the run."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    @contextlib.contextmanager
    def running(self, argv: Sequence[str], log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process in a session of its own, with its output in ``log``; SIGKILLed at the end if it is still there."""
        with log.open("ab") as out:
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environ() | env,
                start_new_session=True,
            )
        try:
            yield popen
        finally:
            popen.kill()
            popen.wait()

    def sweep(self) -> int:
        """Kill what is left of what this run started, until nothing is; says how many there were."""
        killed: set[int] = set()
        while left := self._alive():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed |= left
            time.sleep(0.01)
        return len(killed)

    def _alive(self) -> set[int]:
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return {pid for pid in pids if pid != os.getpid() and self._is_ours(pid)}

    def _is_ours(self, pid: int) -> bool:
        """A zombie has no environment, so it is none of these."""
        try:
            return self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False


@contextlib.contextmanager
def a_bench(quick: bool) -> Iterator[Bench]:
    """SIGTERM and SIGHUP end the run as Ctrl-C does: with KeyboardInterrupt, and with nothing left.

    So does SIGINT where it came ignored, as it does to what a shell runs in the background.
    """
    mark = uuid.uuid4().hex
    os.environ[MARK_VARIABLE] = mark
    for number in ENDING:
        signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(prefix="rallypoint-bench-", ignore_cleanup_errors=True) as folder:
        bench = Bench(quick, Path(folder), mark)
        try:
            yield bench
        finally:
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)
            bench.sweep()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _environ() -> dict[str, str]:
    """Ours, but for a variable by which our sources would be compiled anew at each start, and torch's not.

    What pip installs is compiled once. A checkout is at its first start, unless it is forbidden to keep that.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
