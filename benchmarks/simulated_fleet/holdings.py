"""What a coordinator holds of a fleet, and what it takes to copy, keep and show that."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TypeVar

from rallypoint.v1 import job_service_pb2 as pb
from rallypoint_coordinator.server.job_servicer import get_job, list_nodes
from rallypoint_coordinator.server.pages import PAGE_SIZE_MAX
from rallypoint_coordinator.server.snapshots import encode_checked
from simulated_fleet.coordinator import Coordinator

T = TypeVar("T")

_NOT_OURS = (type, ModuleType, FunctionType, BuiltinFunctionType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """``core_bytes``: of all that the core's state refers to. Seconds are CPU time."""

    core_bytes: int
    copy_s: float
    """Of the durable facts, for a snapshot: nothing else is decided meanwhile."""
    snapshot_s: float
    """Encoding the copy, and reading it back to see that it is right: in a thread of its own."""
    snapshot_bytes: int
    job_s: float
    job_bytes: int
    page_s: float
    """The first page of the first job's nodes."""
    page_bytes: int


def holdings_of(coordinator: Coordinator, job: str) -> Holdings:
    cluster, stamp = coordinator.cluster, coordinator.stamp()
    show_job = get_job(pb.GetJobRequest(name=f"jobs/{job}"))
    show_nodes = list_nodes(pb.ListNodesRequest(parent=f"jobs/{job}", page_size=PAGE_SIZE_MAX))
    snapshot, copy_s = _timed(cluster.snapshot)
    data, snapshot_s = _timed(lambda: encode_checked(snapshot))
    shown, job_s = _timed(lambda: show_job(cluster, stamp).SerializeToString())
    page, page_s = _timed(lambda: show_nodes(cluster, stamp).SerializeToString())
    return Holdings(
        core_bytes=deep_size(cluster),
        copy_s=copy_s,
        snapshot_s=snapshot_s,
        snapshot_bytes=len(data),
        job_s=job_s,
        job_bytes=len(shown),
        page_s=page_s,
        page_bytes=len(page),
    )


def deep_size(root: object) -> int:
    """The bytes of an object and of all that it refers to, each once."""
    seen, waiting, size = {id(root)}, [root], 0
    while waiting:
        found = waiting.pop()
        size += sys.getsizeof(found)
        for other in gc.get_referents(found):
            if id(other) not in seen and not isinstance(other, _NOT_OURS):
                seen.add(id(other))
                waiting.append(other)
    return size


def _timed(do: Callable[[], T]) -> tuple[T, float]:
    began = time.thread_time()
    done = do()
    return done, time.thread_time() - began
