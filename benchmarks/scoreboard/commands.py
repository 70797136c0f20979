"""The two launchers, and what they need beside them, as processes of a bench."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scoreboard.bench import Bench
from support.cluster import LISTENING

RALLYPOINT = (str(Path(sys.executable).with_name("rallypoint")),)
TORCHRUN = (str(Path(sys.executable).with_name("torchrun")),)
STORE = """\
import sys, time
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
print(f"store listening on 127.0.0.1:{store.port}", flush=True)
while True:
    time.sleep(3600)
"""
STORE_LISTENS = re.compile(r"store listening on (\S+)\n")


@contextlib.contextmanager
def coordinator(bench: Bench, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A coordinator that serves, as its defaults are, and its address."""
    log = folder / "coordinator.log"
    with bench.running([*RALLYPOINT, "coordinator", "--listen", "127.0.0.1:0"], log) as popen:
        yield popen, wait_for_line(log, LISTENING)


@contextlib.contextmanager
def torch_store(bench: Bench, folder: Path) -> Iterator[str]:
    """The address of a c10d store that is there before any torchrun is."""
    log = folder / "store.log"
    with bench.running([sys.executable, "-c", STORE], log):
        yield wait_for_line(log, STORE_LISTENS)


def wait_for_line(log: Path, pattern: re.Pattern[str], timeout: float = 60.0) -> str:
    """The first group of the pattern once the log has it; TimeoutError with the log if it never does."""
    deadline = time.monotonic() + timeout
    while not (found := pattern.search(text := log.read_text(errors="replace"))):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {pattern.pattern!r} within {timeout:g} s in {log.name}:\n{text}")
        time.sleep(0.005)
    return found.group(1)
