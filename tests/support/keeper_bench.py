"""A real keeper whose agent is the test itself, and the mark of everything that it starts."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from rallypoint_agent.keeper import Keeper, KeeperEvent, WorkerCommand
from support.processes import MARK_VARIABLE, new_mark, pids_with_mark, wait_until

SLEEP = ("sleep", "1000")
TREE_WORKER = (sys.executable, "-S", "-I", str(Path(__file__).parent.parent / "process" / "tree_worker.py"))
LONG = 1000.0

E = TypeVar("E")


class Bench:
    """A keeper and the mark of everything it starts."""

    def __init__(self) -> None:
        self.mark = new_mark()
        self.env = dict(os.environ) | {MARK_VARIABLE: self.mark}
        self.keeper = Keeper.start()
        self.seen: list[KeeperEvent] = []

    def command(
        self,
        local_rank: int,
        argv: Sequence[str],
        *,
        env: dict[str, str] | None = None,
        stdout: str | None = None,
        stderr: str | None = None,
        cwd: str | None = None,
        cpus: tuple[int, ...] | None = None,
    ) -> WorkerCommand:
        return WorkerCommand(
            local_rank=local_rank,
            argv=tuple(argv),
            env=self.env | (env or {}),
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            cpus=cpus,
        )

    def spawn(self, *argvs: Sequence[str], round_number: int = 0) -> None:
        commands = [self.command(rank, argv) for rank, argv in enumerate(argvs)]
        self.keeper.spawn(round_number, commands)

    def shell(self, *scripts: str, round_number: int = 0) -> None:
        self.spawn(*(("sh", "-c", script) for script in scripts), round_number=round_number)

    def tree(self, ready: Path, *options: str) -> None:
        """Spawn one worker with a family, and wait until all of it runs."""
        self.spawn((*TREE_WORKER, str(ready), *options))
        wait_until(ready.exists, message="the family is complete")

    def expect(self, kind: type[E], count: int = 1) -> list[E]:
        """Wait for so many events of a kind, in this test so far."""

        def found() -> list[E]:
            self.seen += self.keeper.wait(0.05)
            return [event for event in self.seen if isinstance(event, kind)]

        wait_until(lambda: len(found()) >= count, message=f"{count} x {kind.__name__}")
        return found()

    def stop(self, death_signal: int = signal.SIGTERM, grace: float = LONG) -> None:
        self.keeper.stop(death_signal=death_signal, grace=grace)

    def expect_nothing_alive(self) -> None:
        assert pids_with_mark(self.mark) == set()


def boot_ns(after: float = 0.0) -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(after * 1e9)
