"""What processes weigh, from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from soak.trend import Bound, Line, Sample, line_through, second_half

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")
BLOCK = 512
MIB = 1 << 20

BOUNDS = {
    "RSS, MiB": Bound(1.5),
    "fds": Bound(2.0),
    "data directory, MiB": Bound(2.0, share=0.2),
}
"""By the kind of what is sampled.

Memory: at rest it goes up and down by some 0.3 MiB. In the second half of an hour more than 14,000 changes are made up
(``soak.made_up``), each of seven kinds some 2,000 times, and rounds end because of most of them. So a KiB that is left
by each of a single kind is 2 MiB, and one that each departure leaves 8 MiB. In ten minutes it has to be 5 KiB and more.

What is bounded is full by then: the log of events has its 1,024 records from the start, 20 jobs are remembered after as
many seconds, 1,000 gone nodes of the job that has ever new ones after a quarter of an hour (1.3 KiB each, so a run of
ten minutes sees 0.6 MiB of them), and gRPC's leavings are collected every 50,000 objects, which are 10,000 calls:
the saw-tooth of that alone may be more than ten minutes are allowed.
"""


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / MIB


def open_fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def folder_mib(folder: Path) -> float:
    """What its files take up on the disk."""
    blocks = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a log of the database that was merged meanwhile
            blocks += path.stat().st_blocks
    return blocks * BLOCK / MIB


class Samples:
    """By whose they are and of what kind."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], list[Sample]] = defaultdict(list)

    def take(self, processes: Mapping[str, int], data: Path) -> None:
        """AssertionError if one of the processes has ended: nobody struck it."""
        at_s = time.monotonic()
        for whose, pid in processes.items():
            try:
                resident, fds = resident_mib(pid), open_fds(pid)
            except (FileNotFoundError, ProcessLookupError, IndexError):
                raise AssertionError(f"{whose}, pid {pid}, has ended") from None
            self._of[whose, "RSS, MiB"].append(Sample(at_s, resident))
            self._of[whose, "fds"].append(Sample(at_s, fds))
        self._of["coordinator", "data directory, MiB"].append(Sample(at_s, folder_mib(data)))

    def lines(self) -> dict[tuple[str, str], Line]:
        """Through the second half of each."""
        return {key: line_through(second_half(samples)) for key, samples in self._of.items()}


def grown(lines: Mapping[tuple[str, str], Line]) -> list[str]:
    """Every line that rises more than it may."""
    return [
        f"{whose}: {kind} rose by {line.rise:.2f} from about {line.middle:.1f}"
        for (whose, kind), line in lines.items()
        if not BOUNDS[kind].allows(line)
    ]
