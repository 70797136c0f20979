"""The workers of these benchmarks: each notes when it began, and waits to be ended. The same for both sides.

One is a shell script, which takes a millisecond to start: what is measured is the launcher. The other is the least that
a worker in Python can be, without site-packages, since what a job waits for is such a program. Their clock is the wall
clock, as ``time.time()`` here.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

SHELL = """\
#!/bin/bash
echo "$EPOCHREALTIME ${RANK-0} ${TORCHELASTIC_RESTART_COUNT-0} $$" >> "$1"
exec sleep 3600
"""
PYTHON = f"""\
#!{sys.executable} -SI
import os, sys, time
at = time.time()
env = os.environ
with open(sys.argv[1], "a") as notes:
    notes.write(f"{{at}} {{env.get('RANK', 0)}} {{env.get('TORCHELASTIC_RESTART_COUNT', 0)}} {{os.getpid()}}\\n")
time.sleep(3600)
"""
POLL_S = 0.005


@dataclass(frozen=True)
class Note:
    """What a worker wrote as it began: seconds since the epoch, and who it is."""

    at: float
    rank: int
    restart_count: int
    pid: int


class Workers:
    """The workers of one job, in a folder of their own; ``script`` is SHELL or PYTHON."""

    def __init__(self, folder: Path, script: str = SHELL) -> None:
        self._notes = folder / "notes"
        self._notes.touch()
        program = folder / "worker"
        program.write_text(script)
        program.chmod(0o755)
        self.command = (str(program), str(self._notes))
        """What a launcher runs with ``--no-python``."""

    def notes(self) -> list[Note]:
        """Of all that have begun so far."""
        lines = (line.split() for line in self._notes.read_text().splitlines(keepends=True) if line.endswith("\n"))
        return [Note(float(at), int(rank), int(restarts), int(pid)) for at, rank, restarts, pid in lines]

    def wait_for(self, count: int, timeout: float = 120.0) -> list[Note]:
        """Until so many have begun in all; TimeoutError if they do not."""
        deadline = time.monotonic() + timeout
        while len(notes := self.notes()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(notes)} of {count} workers began within {timeout:g} s")
            time.sleep(POLL_S)
        return notes
