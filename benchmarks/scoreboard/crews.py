"""N agents of one job with one worker each, ours or torchrun's, and when the last of them asked for rendezvous.

"N agents up, rendezvous to the last worker's start" has to begin at the same point of both launchers' lives, and
neither may be changed for it. All agents are started at once, as a job's are. What an agent does before it asks
(imports, options, its connection) belongs to the figure "start to worker exec", so the clock starts when the last of
them asks:

- torchrun: its log line "Rendezvous'ing worker group", printed just before it calls ``next_rendezvous``. It has made
  its connection to the store before that.
- ours: the instant at which the coordinator had the last agent's Hello, which is its event "node joined". The agent has
  made its connection before that.

Both are wall clock times to the millisecond, as are the workers' notes, on one machine.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import uuid
from pathlib import Path
from typing import Protocol

import grpc

from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from scoreboard.bench import Bench
from scoreboard.commands import RALLYPOINT, TORCHRUN, wait_for_line
from scoreboard.workers import Workers
from support.ports import free_range
from support.processes import wait_until

MAX_RESTARTS = "100"
ASKS = re.compile(r"^I(\d{4} [\d:.]+) .*Rendezvous'ing worker group$", re.MULTILINE)
"""A line of torchrun's log, with its month, day and time."""


class Crew(Protocol):
    """The agents of one job. ``workers`` are all that they have begun."""

    workers: Workers

    def start(self, number: int) -> None:
        """Start the agent of this number, from 0 on."""

    def asked(self, number: int) -> float:
        """When it asked for rendezvous, in seconds since the epoch; waits until it has."""


class RallypointCrew:
    def __init__(
        self, bench: Bench, folder: Path, size: int, script: str, address: str, ending: contextlib.ExitStack
    ) -> None:
        self.workers = Workers(folder, script)
        self._bench, self._folder, self._size, self._address, self._ending = bench, folder, size, address, ending
        self._job = uuid.uuid4().hex
        channel = ending.enter_context(grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]))
        self._stub = JobServiceStub(channel)

    def start(self, number: int) -> None:
        flags = ("--coordinator", self._address, "--rdzv-id", self._job, "--node-name", f"node-{number}")
        sizes = ("--nnodes", str(self._size), "--max-restarts", MAX_RESTARTS)
        argv = (*RALLYPOINT, "run", *flags, *sizes, "--no-python", *self.workers.command)
        self._ending.enter_context(self._bench.running(argv, self._folder / f"agent-{number}.log"))

    def asked(self, number: int) -> float:
        return wait_until(lambda: self._joined().get(f"node-{number}"), 120, f"agent {number} does not join")

    def _joined(self) -> dict[str, float]:
        """When the coordinator had each node's Hello."""
        request = pb.ListJobEventsRequest(parent=f"jobs/{self._job}", kinds=[pb.JOB_EVENT_KIND_NODE_JOINED])
        try:
            events = self._stub.ListJobEvents(request, timeout=10).events
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        return {event.node: event.event_time.ToNanoseconds() / 1e9 for event in events}


class TorchCrew:
    """torchrun's c10d backend; the store is served by the first agent, as it is unless told otherwise."""

    def __init__(self, bench: Bench, folder: Path, size: int, script: str, ending: contextlib.ExitStack) -> None:
        self.workers = Workers(folder, script)
        self._bench, self._folder, self._size, self._ending = bench, folder, size, ending
        self._job = uuid.uuid4().hex
        self._endpoint = f"127.0.0.1:{free_range(1)[0]}"

    def start(self, number: int) -> None:
        flags = ("--rdzv-backend", "c10d", "--rdzv-endpoint", self._endpoint, "--rdzv-id", self._job)
        sizes = ("--nnodes", str(self._size), "--nproc-per-node", "1", "--max-restarts", MAX_RESTARTS)
        argv = (*TORCHRUN, *flags, *sizes, "--no-python", *self.workers.command)
        self._ending.enter_context(self._bench.running(argv, self._log(number), LOGLEVEL="INFO"))

    def asked(self, number: int) -> float:
        return instant_of_log(wait_for_line(self._log(number), ASKS, 120), datetime.datetime.now().astimezone())

    def _log(self, number: int) -> Path:
        return self._folder / f"agent-{number}.log"


def instant_of_log(told: str, now: datetime.datetime) -> float:
    """A time of torchrun's log, which says no year and no zone, in seconds since the epoch."""
    at = datetime.datetime.strptime(f"{now.year}{told}", "%Y%m%d %H:%M:%S.%f").replace(tzinfo=now.tzinfo)
    return at.timestamp() if at <= now else at.replace(year=now.year - 1).timestamp()
