"""The agent's data types and its interface, as torch.distributed.elastic.agent.server names them.

Fields, their order, defaults and the meaning of each state are torch's. What is added: a worker
group knows the :class:`~rallypoint.model.Assignment` it was filled from, and a failure is a
:class:`~rallypoint.model.WorkerFailure`.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from rallypoint.model import Assignment, WorkerFailure, WorkerState
from rallypoint.values import dataclass

__all__ = [
    "DEFAULT_ROLE",
    "ElasticAgent",
    "RunResult",
    "Worker",
    "WorkerGroup",
    "WorkerSpec",
    "WorkerState",
]

DEFAULT_ROLE = "default"


@dataclass
class WorkerSpec:
    """What to run on this node. Every field is torch's; times are in seconds.

    ``rdzv_handler`` is the agent's way to the coordinator: a :class:`~rallypoint_agent.link.Link`.
    ``master_addr`` and ``master_port`` override what this node offers as the workers' meeting
    place; ``local_addr`` is the address under which other nodes reach this one.
    Raises ValueError if it makes no sense.
    """

    role: str
    local_world_size: int
    rdzv_handler: Any
    fn: Callable[..., Any] | None = None
    entrypoint: Callable[..., Any] | str | None = None
    args: tuple[Any, ...] = ()
    max_restarts: int = 3
    monitor_interval: float = 0.1
    master_port: int | None = None
    master_addr: str | None = None
    local_addr: str | None = None
    event_log_handler: str = "null"
    numa_options: Any = None
    duplicate_stdout_filters: list[str] | None = None
    duplicate_stderr_filters: list[str] | None = None
    virtual_local_rank: bool = False

    def __post_init__(self) -> None:
        if self.fn is not None:
            warnings.warn("WorkerSpec.fn is deprecated: use entrypoint", DeprecationWarning, stacklevel=3)
            self.entrypoint = self.fn
        if self.local_world_size < 1:
            raise ValueError(f"local_world_size must be 1 or more, not {self.local_world_size}")
        if not self.monitor_interval > 0:
            raise ValueError(f"monitor_interval must be above 0 s, not {self.monitor_interval}")
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts must be 0 or more, not {self.max_restarts}")
        if not self.entrypoint:
            raise ValueError("entrypoint is missing: a program's path or a function")

    def get_entrypoint_name(self) -> str:
        """The program's file name, or the function's qualified name."""
        if isinstance(self.entrypoint, str):
            return os.path.basename(self.entrypoint)
        assert self.entrypoint is not None
        return self.entrypoint.__qualname__


class Worker:
    """One worker's place in a round. ``id`` is the subclass's own: LocalElasticAgent uses pids."""

    __slots__ = ("global_rank", "id", "local_rank", "role_rank", "role_world_size", "world_size")

    def __init__(
        self,
        local_rank: int,
        global_rank: int = -1,
        role_rank: int = -1,
        world_size: int = -1,
        role_world_size: int = -1,
    ) -> None:
        self.id: Any = None
        self.local_rank = local_rank
        self.global_rank = global_rank
        self.role_rank = role_rank
        self.world_size = world_size
        self.role_world_size = role_world_size

    def __str__(self) -> str:
        return (
            f"local_rank={self.local_rank},global_rank={self.global_rank},"
            f"role_rank={self.role_rank},world_size={self.world_size},"
            f"role_world_size={self.role_world_size}"
        )

    def __repr__(self) -> str:
        return f"Worker({self})"


class WorkerGroup:
    """This node's workers. Everything but the spec is filled anew for every round."""

    __slots__ = (
        "assignment",
        "group_rank",
        "group_world_size",
        "master_addr",
        "master_port",
        "spec",
        "state",
        "store",
        "workers",
    )

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.workers = [Worker(local_rank) for local_rank in range(spec.local_world_size)]
        self.store: Any = None
        self.group_rank: int | None = None
        self.group_world_size: int | None = None
        self.master_addr: str | None = None
        self.master_port: int | None = None
        self.assignment: Assignment | None = None
        self.state = WorkerState.INIT

    def assign(self, assignment: Assignment) -> None:
        """Take this place in a round: ranks and meeting place are the assignment's."""
        self.workers = [
            Worker(
                local_rank,
                global_rank=assignment.first_rank + local_rank,
                role_rank=assignment.first_role_rank + local_rank,
                world_size=assignment.world_size,
                role_world_size=assignment.role_world_size,
            )
            for local_rank in range(self.spec.local_world_size)
        ]
        self.group_rank = assignment.group_rank
        self.group_world_size = assignment.group_world_size
        self.master_addr, self.master_port = assignment.endpoint
        self.assignment = assignment
        self.state = WorkerState.INIT

    def set_ids(self, ids: Mapping[int, Any]) -> None:
        """Note what a start returned, by local rank. Raises ValueError if a worker has no id."""
        if missing := [worker.local_rank for worker in self.workers if worker.local_rank not in ids]:
            raise ValueError(f"_start_workers returned no id for local rank {', '.join(map(str, missing))}")
        for worker in self.workers:
            worker.id = ids[worker.local_rank]


@dataclass
class RunResult:
    """How a worker group is, or how it ended. Both mappings are by global rank."""

    state: WorkerState
    return_values: dict[int, Any] = field(default_factory=dict)
    failures: dict[int, WorkerFailure] = field(default_factory=dict)

    def is_failed(self) -> bool:
        """Whether ``state`` is FAILED; UNHEALTHY, as in torch, is not."""
        return self.state is WorkerState.FAILED


class ElasticAgent(ABC):
    """Runs the workers of one node until the job is decided."""

    @abstractmethod
    def run(self, role: str = DEFAULT_ROLE) -> RunResult:
        """Take part in the job until its end."""

    @abstractmethod
    def get_worker_group(self, role: str = DEFAULT_ROLE) -> WorkerGroup:
        """The worker group. It is the agent's own: do not change it."""
