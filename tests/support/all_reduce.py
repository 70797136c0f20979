"""Waiting for the gloo workers of tests/compat/workers/all_reduce.py, whoever launched them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from support.cluster import Process
from support.processes import wait_until

WORKER = str(Path(__file__).parent.parent / "compat" / "workers" / "all_reduce.py")
_UP = re.compile(r"up: rank (\d+) of (\d+) pid (\d+) at (\S+)")


def wait_up(launchers: Sequence[Process], world_size: int, after: int = 0) -> list[re.Match[str]]:
    """Wait until each has a new worker in a world of this size; ``after``: so many were seen of each before.

    The groups: rank, world size, pid, and the store that they met at.
    """

    def latest(launcher: Process) -> re.Match[str] | None:
        found = list(_UP.finditer(launcher.output))
        return found[-1] if len(found) > after and int(found[-1][2]) == world_size else None

    def all_up() -> list[re.Match[str]] | None:
        found = [latest(launcher) for launcher in launchers]
        return [match for match in found if match] if all(found) else None

    try:
        return wait_until(all_up, 90, f"no world of {world_size}")
    except AssertionError as error:
        transcript = "\n".join(launcher.output for launcher in launchers)
        raise AssertionError(f"{error}\n{transcript}") from None


def kill_worker(up: re.Match[str]) -> None:
    os.kill(int(up[3]), signal.SIGKILL)
