"""What a worker runs: a program; or a function of the program that the agent is part of (``function_entrypoint``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from rallypoint_agent.api import WorkerSpec
from rallypoint_agent.worker_env import worker_args


class ReturnValueError(Exception):
    """A worker's function returned what cannot be read here; its text says why."""


class Entrypoint(Protocol):
    """How each worker of a node is started, and what it returned."""

    def argv(self, round_number: int, local_rank: int) -> tuple[str, ...]:
        """The worker's command line in this round. Raises OSError if it cannot be prepared."""

    def return_value(self, round_number: int, local_rank: int) -> Any:
        """Of a worker that has exited with 0. Raises ReturnValueError."""

    def clear(self) -> None:
        """Remove what was prepared for workers, and what they returned: none is alive. Another round may follow."""


def entrypoint_of(spec: WorkerSpec) -> Entrypoint:
    """Raises ValueError for a function that no other process could find."""
    if isinstance(spec.entrypoint, str):
        return Program(spec.entrypoint, spec.args)
    assert spec.entrypoint is not None
    # Needs pickle and multiprocessing, which the agent of a program does not.
    from rallypoint_agent.function_entrypoint import Function

    return Function(spec.entrypoint, spec.args, spec.get_entrypoint_name())


class Program:
    """A program on the PATH or by its path. Its workers return None."""

    def __init__(self, path: str, args: Sequence[object]) -> None:
        self._path = path
        self._args = args

    def argv(self, round_number: int, local_rank: int) -> tuple[str, ...]:
        return (self._path, *map(str, worker_args(self._args, local_rank)))

    def return_value(self, round_number: int, local_rank: int) -> Any:
        return None

    def clear(self) -> None:
        pass
