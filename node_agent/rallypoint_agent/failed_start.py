"""Starts of workers that fail: what says so, and what is reported of it."""

from __future__ import annotations

import time
import traceback

from rallypoint.model import WorkerFailure
from rallypoint_agent.api import WorkerGroup
from rallypoint_agent.core.stuck import CANNOT_START
from rallypoint_agent.link.clock import boot_ms


class WorkerStartError(Exception):
    """A worker could not be started; its text says which program and why."""

    def __init__(self, message: str, local_rank: int = 0) -> None:
        super().__init__(message)
        self.local_rank = local_rank


class StartInterruptedError(Exception):
    """A start was given up because the workers have to end anyway. Some may be running."""


def start_failure(error: Exception, node: str, group: WorkerGroup) -> WorkerFailure:
    """The failure of this node that the error is; an unexpected one with its traceback."""
    expected = isinstance(error, WorkerStartError)
    local_rank = error.local_rank if isinstance(error, WorkerStartError) else 0
    return WorkerFailure(
        node=node,
        local_rank=local_rank,
        rank=group.workers[local_rank].global_rank,
        pid=0,
        exit_code=CANNOT_START,
        message=str(error) if expected else f"cannot start {group.spec.get_entrypoint_name()}: {error}",
        traceback="" if expected else "".join(traceback.format_exception(error)),
        fail_time_ms=time.time_ns() // 1_000_000,
        fail_clock_ms=boot_ms(),
    )
