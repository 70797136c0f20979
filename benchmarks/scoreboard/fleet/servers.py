"""The process that is measured: on a core of its own, with its CPU time and its memory as the kernel tells them."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KIB_PER_MIB = 1024

CORES = tuple(sorted(os.sched_getaffinity(0)))
SERVER_CORES = frozenset(CORES[:1])
CLIENT_CORES = frozenset(CORES[1:2] or CORES)
"""The server has the first core to itself, and whoever puts load on it the second."""


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """What this thread starts meanwhile runs there, and so does the thread itself."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_open_files_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cpu_s(pid: int) -> float:
    """The CPU time of all its threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def busy_s(pid: int) -> float:
    """The time in which its threads ran, or waited for a core that others had, in seconds."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
            ran, waited, _ = (task / "schedstat").read_text().split()
            total_ns += int(ran) + int(waited)
    return total_ns / 1e9


def rss_mib(pid: int) -> float:
    """Its resident memory, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / _KIB_PER_MIB
    raise RuntimeError(f"process {pid} has no memory any more")
