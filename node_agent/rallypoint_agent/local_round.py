"""What is known of the workers of one round on this node."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import NamedTuple

from rallypoint.model import Assignment, WorkerFailure
from rallypoint.values import dataclass
from rallypoint_agent.errors import Ending, failure_of
from rallypoint_agent.keeper import WorkerExited
from rallypoint_agent.oom import OomReason, watch_for_oom_kills


class _Sentence(NamedTuple):
    at_ns: int
    signal: int
    reason: str


@dataclass(slots=True)
class LocalRound:
    """Filled from the keeper's events. Instants are nanoseconds of CLOCK_BOOTTIME.

    ``gone``: no process of the round is alive. ``fence_ns``: when the fence strikes, by SIGTERM and
    by SIGKILL, as far as it is set. An exit from then on, or after a stop was sent, is no failure
    of the worker's own.
    """

    node: str
    assignment: Assignment
    error_files: Mapping[int, str]
    oom_reason: OomReason = field(default_factory=watch_for_oom_kills)
    """Asked for every worker that SIGKILL ended without anybody of ours having sent it."""
    full_disk: Callable[[int], str] = lambda local_rank: ""
    """Why the worker may have failed, in words, if it is for want of room to write to. Asked for each that exits by
    itself with another code than 0."""
    pids: dict[int, int] = field(default_factory=dict)
    start_failure: tuple[int, str] | None = None
    gone: bool = False
    stuck: tuple[int, ...] = ()
    """Processes that SIGKILL did not end in reasonable time."""
    fence_ns: tuple[int, int] | None = None
    _stop_ns: int | None = None
    _stop_kill_ns: int | None = None
    _condemned: dict[int, _Sentence] = field(default_factory=dict)
    _exits: dict[int, Ending] = field(default_factory=dict)
    _shortages: dict[int, str] = field(default_factory=dict)
    """What the machine had too little of when it ended, by local rank."""
    _trouble: str = ""
    _told: set[int] = field(default_factory=set)

    def stop_sent(self, at_ns: int, kill_at_ns: int) -> None:
        """The workers are being told to end. Of several stops the soonest SIGKILL counts."""
        self._stop_ns = _sooner(self._stop_ns, at_ns)
        self._stop_kill_ns = _sooner(self._stop_kill_ns, kill_at_ns)

    @property
    def is_stopping(self) -> bool:
        return self._stop_ns is not None

    @property
    def kill_at_ns(self) -> int:
        """When all that is left is due to be killed, by the stop that was sent or by the fence."""
        kill_at_ns = _sooner(self._stop_kill_ns, self.fence_ns[1] if self.fence_ns else None)
        assert kill_at_ns is not None, "a stop comes first"
        return kill_at_ns

    def condemn(self, local_rank: int, at_ns: int, number: int, reason: str) -> None:
        """This worker is being killed by this signal. Its end from now on is a failure, for this reason."""
        self._condemned.setdefault(local_rank, _Sentence(at_ns, number, reason))

    @property
    def running(self) -> dict[int, int]:
        """The pids of the workers that have not ended, by local rank."""
        return {rank: pid for rank, pid in self.pids.items() if rank not in self._exits}

    def give_up(self, local_rank: int, at_ns: int, reason: str) -> None:
        """This worker has failed for this reason, without an end: SIGKILL is sent to it, and may have no effect."""
        self.condemn(local_rank, at_ns, signal.SIGKILL, reason)
        number, pid = self.assignment.round, self.pids[local_rank]
        self.exited(WorkerExited(number, local_rank, pid, -signal.SIGKILL, at_ns, time.time()))

    def exited(self, event: WorkerExited) -> None:
        told_ns = _sooner(self._stop_ns, self.fence_ns[0] if self.fence_ns else None)
        ending = Ending(
            node=self.node,
            local_rank=event.local_rank,
            rank=self.assignment.first_rank + event.local_rank,
            pid=event.pid,
            exit_code=self._judged(event),
            time_ms=round(event.wall_time * 1000),
            boot_ms=event.at_boot_ns // 1_000_000,
            after_stop=told_ns is not None and event.at_boot_ns >= told_ns,
        )
        self._exits[event.local_rank] = ending
        ours = ending.after_stop or ending.local_rank in self._condemned or self._trouble
        if not ours and (reason := self._shortage(ending)):
            self._shortages[ending.local_rank] = reason

    def _shortage(self, ending: Ending) -> str:
        """Now, while there may still be a sign of it."""
        if ending.exit_code == -signal.SIGKILL:
            return self.oom_reason()
        return self.full_disk(ending.local_rank) if ending.exit_code > 0 else ""

    def _judged(self, event: WorkerExited) -> int:
        """Its exit code. To be killed and to exit with 0 is no success."""
        sentence = self._condemned.get(event.local_rank)
        if sentence is None:
            return event.exit_code
        if event.at_boot_ns < sentence.at_ns:
            del self._condemned[event.local_rank]
            return event.exit_code
        return event.exit_code or -sentence.signal

    def keeper_died(self, exit_code: int, at_ns: int) -> None:
        """Whoever ran was killed with it, and everything else has been by now."""
        self._trouble = f"the keeper died (exit code {exit_code}), and the worker with it"
        number = self.assignment.round
        for local_rank in self.error_files:
            if local_rank not in self._exits:
                pid = self.pids.get(local_rank, 0)
                killed = -signal.SIGKILL
                self.exited(WorkerExited(number, local_rank, pid, killed, at_ns, time.time()))

    def has_succeeded(self, local_world_size: int) -> bool:
        """Whether all workers exited with 0, none of them because it was told to."""
        endings = self._exits.values()
        return len(endings) == local_world_size and not any(ending.exit_code or ending.after_stop for ending in endings)

    def failure_after_success(self, local_rank: int, trouble: str) -> WorkerFailure:
        """Of a worker that exited with 0, all the same."""
        return replace(self._failure(self._exits[local_rank]), message=trouble)

    def take_failures(self, late: bool = False) -> tuple[WorkerFailure, ...]:
        """The failures not taken yet, in the order of their exits; ``late``: collateral ones too."""
        due = [
            ending
            for ending in self._exits.values()
            if ending.exit_code and ending.local_rank not in self._told
            if late or not ending.after_stop
        ]
        self._told.update(ending.local_rank for ending in due)
        return tuple(self._failure(ending) for ending in due)

    def _failure(self, ending: Ending) -> WorkerFailure:
        sentence = self._condemned.get(ending.local_rank)
        trouble = sentence.reason if sentence else self._shortages.get(ending.local_rank, self._trouble)
        return failure_of(ending, self.error_files[ending.local_rank], trouble)


def _sooner(*instants: int | None) -> int | None:
    return min((instant for instant in instants if instant is not None), default=None)
