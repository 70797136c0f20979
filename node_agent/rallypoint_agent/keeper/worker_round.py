"""The workers of one round, as the keeper sees them."""

from __future__ import annotations

import contextlib
import os

from rallypoint_agent.keeper.launch import launch

# See framing.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from rallypoint_agent.keeper.framing import Message


class WorkerRound:
    """From the first fork to the end of the last process.

    Invariant: ``exits`` holds only what happened before the round was announced as spawned.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.pids: dict[int, int] = {}
        """Of all workers, by local rank."""
        self.live: dict[int, int] = {}
        """Local ranks by pid, of the workers that were not reaped yet."""
        self.starting: dict[int, int] = {}
        """Local ranks by the pipe on which a worker tells that it cannot start."""
        self.failures: dict[int, str] = {}
        """Why workers could not start, by local rank."""
        self.exits: list[Message] = []
        self.announced = False

    def start(self, workers: list[Message]) -> None:
        """Start them side by side; at the first that has no process, the rest is left out."""
        for worker in workers:
            rank = worker["local_rank"]
            try:
                pid, pipe = launch(worker)
            except OSError as error:
                self.failures[rank] = f"cannot make a process: {error.strerror}"
                return
            self.pids[rank] = pid
            self.live[pid] = rank
            self.starting[pipe] = rank

    def read_start(self, pipe: int) -> None:
        """The worker behind this pipe runs its program now, or tells why it cannot."""
        error = os.read(pipe, 4096)
        os.close(pipe)
        rank = self.starting.pop(pipe)
        if error:
            self.failures[rank] = error.decode("utf-8", "surrogateescape")

    @property
    def started(self) -> bool:
        """Whether every worker runs its program, or did."""
        return not self.starting and not self.failures

    def signal_groups(self, number: int) -> None:
        """To the process group of each worker that was not reaped: its pid is still its own."""
        for pid in self.live:
            # All of it may just have ended, or run as somebody else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)

    def signal_worker(self, local_rank: int, number: int) -> None:
        """To this worker alone, unless it was reaped."""
        for pid, rank in self.live.items():
            if rank == local_rank:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)


class Teardown:
    """The end of a round that was asked for, or that the fence made necessary."""

    def __init__(self, kill_at_ns: int) -> None:
        self.kill_at_ns = kill_at_ns
        self.fenced = False
        self.signals_sent: set[int] = set()

    def hasten(self, kill_at_ns: int) -> None:
        self.kill_at_ns = min(self.kill_at_ns, kill_at_ns)


def exit_code(status: os.waitid_result) -> int:
    """The exit code as Python has it: the number of the signal, negative, if one ended it."""
    return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
