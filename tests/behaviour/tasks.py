"""What the workers of this suite do: functions that a worker, a process of its own, imports."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def rank() -> int:
    return int(os.environ["RANK"])


def restarts() -> int:
    return int(os.environ["TORCHELASTIC_RESTART_COUNT"])


def multiplied(local_rank: str, by: int) -> tuple[int, int]:
    """What it was given and what the agent set."""
    return int(local_rank), rank() * by


def place() -> dict[str, str]:
    """Which place in the job this worker has."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")
    return {name: os.environ[name] for name in (*names, "ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE")}


def fail_on(ranks: list[int], together: str) -> int:
    """These ranks fail, once all of them are there; the others wait to be told to end."""
    if rank() not in ranks:
        wait_for(Path(together) / "never")
    Path(together, str(rank())).touch()
    for other in ranks:
        wait_for(Path(together) / str(other))
    raise RuntimeError(f"rank {rank()} has had enough")


def fail_until(restart: int, notes: str) -> int:
    """Fails before so many restarts; leaves a note of every try."""
    Path(notes, f"try-{restarts()}-of-{rank()}").touch()
    if restarts() < restart and rank() == 0:
        sys.exit(7)
    return restarts()


def die_of(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


def note_signal(folder: str) -> None:
    """Ready is a file; a signal that comes is another, and the end."""

    def note(number: int, frame: object) -> None:
        Path(folder, signal.Signals(number).name).touch()
        sys.exit(0)

    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1"):
        signal.signal(signal.Signals[name], note)
    Path(folder, "ready").touch()
    while True:
        signal.pause()


def linger(folder: str, node: str) -> int:
    """Says where it runs in which world, and goes on until it is told to end, or the file NODE-WORLD_SIZE is there."""
    world_size = os.environ["WORLD_SIZE"]
    Path(folder, f"{node}-in-{world_size}").touch()
    wait_for(Path(folder, f"{node}-{world_size}"))
    return int(world_size)


def end_as_told(folder: str, node: str) -> str:
    """Runs until the file NODE is there, and ends as it says: by an exception if it says "fail"."""
    Path(folder, f"{node}-runs-{restarts()}").touch()
    if (word := wait_for(Path(folder, node)).read_text()) == "fail":
        raise RuntimeError(f"{node} was told to fail")
    return word


def wait_for(path: Path) -> Path:
    while not path.exists():
        time.sleep(0.01)
    return path
