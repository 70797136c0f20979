"""The worker of these benchmarks: it notes when it began, and waits to be ended.

A shell script, so that it costs next to nothing to start and to stop: what is measured is the launcher. It is the same
for both sides. Its clock is the wall clock, as ``time.time()`` here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

SCRIPT = """\
#!/bin/bash
echo "$EPOCHREALTIME ${RANK-0} ${TORCHELASTIC_RESTART_COUNT-0} $$" >> "$1"
exec sleep 3600
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
    """The workers of one job, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._notes = folder / "notes"
        self._notes.touch()
        script = folder / "worker.sh"
        script.write_text(SCRIPT)
        script.chmod(0o755)
        self.command = (str(script), str(self._notes))
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
