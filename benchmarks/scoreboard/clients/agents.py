"""Ours: N agents of a job, a process each, against a coordinator in a process of its own with its journal on disk.

    python benchmarks/scoreboard/clients/agents.py N REPEATS

Each client is an agent but for its workers: the agent's own core decides, the agent's own stream speaks, and a port is
held for each round. A worker is gone as soon as that is asked for. It is started, and that told, once all have their
place: to start it is no part of a rendezvous, and the peer's agents would do so, and more, behind ``next_rendezvous``.

Timed is, begun by all at one instant: the first time, from opening the Attach stream for the Hello until the last one
has its place in the round. As the peer's clients are connected to their store by then, these have a connection, and
nothing more. Then, once all run, the worker of one of them fails: the others are told to stop, all report that their
workers are gone, and each is told its place in the next round, until the last one is. That is more than the peer is
timed at, whose clients all know by themselves that they have to meet again.

Prints a :class:`Result` as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # its own is for processes that have begun to use it, and complains

from rallypoint.model import Capability, Endpoint, Hello, JobSpec, NodeSpec, WorkerFailure, WorkerState
from rallypoint.security.client import NO_SECURITY, open_aio_channel
from rallypoint.v1.agent_service_pb2_grpc import AgentServiceStub
from rallypoint_agent import grpc_setup
from rallypoint_agent.core.effects import (
    Effect,
    HoldPort,
    Report,
    Say,
    SetFence,
    SetIdentity,
    StartWorkers,
    StopWorkers,
)
from rallypoint_agent.core.events import Event, GroupMonitored, PortHeld, TimeAdvanced, WorkersGone, WorkersStarted
from rallypoint_agent.core.machine import AgentCore
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.link.mailbox import Mailbox
from rallypoint_agent.link.stream import Stream
from rallypoint_agent.link.wishes import Identity, Wishes
from rallypoint_agent.rendezvous_port import HeldPort, hold_port
from scoreboard.clients.crowd import REHEARSALS, crowd
from support.cluster import ProcessCluster

HOST = "127.0.0.1"
TIMEOUT_S = 60.0
LONG_MS = 600_000
"""Nothing that takes so long is measured."""
SETTLED_S = 0.5
"""After a round has begun: what is still to be said of it is said by then."""


@dataclass(frozen=True)
class Result:
    """Seconds, one for each repeat."""

    first: list[float]
    again: list[float]


class AgentClient:
    """``connect``, then ``meet``, then ``meet_again`` as often as wanted. Its event loop runs only meanwhile."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._loop = asyncio.new_event_loop()

    def act(self, order: str, *details: Any) -> object:
        return self._loop.run_until_complete(getattr(self, order)(*details))

    # --- Orders

    async def rehearse(self, address: str, rehearsal: int) -> None:
        """Do it all once, in a job of its own."""
        await self.connect(address, f"alone-{self._number}-{rehearsal}", 1)
        await self.meet()
        await self.settle()
        await self._meet_again(fails=True)
        await self.settle()
        await self.part()

    async def connect(self, address: str, job: str, count: int) -> None:
        """A connection and a port, for a job of so many nodes."""
        self._job = job
        self._spec = JobSpec(min_nodes=count, max_nodes=count, max_restarts=1_000, lease_ttl_ms=LONG_MS)
        self._channel = open_aio_channel(address, NO_SECURITY, grpc_setup.channel_options(use_proxy=False))
        await self._channel.channel_ready()
        self._attach = AgentServiceStub(self._channel).Attach
        self._wishes, self._mailbox = Wishes(), Mailbox()
        self._port: HeldPort | None = None
        self._to_start: int | None = None
        self._core = AgentCore(
            AgentConfig(
                node=self._node, local_world_size=1, job_spec=self._spec, connect_timeout_ms=LONG_MS, start_ms=boot_ms()
            )
        )
        self._placed = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._mailbox.fileno(), self._take)
        self._step(TimeAdvanced())

    async def meet(self) -> None:
        stream = Stream(self._attach(), self._hello, self._wishes, self._mailbox)
        self._wishes.listen(stream.wish_changed)
        self._served = asyncio.create_task(stream.run(TIMEOUT_S))
        await self._place()

    async def meet_again(self) -> None:
        await self._meet_again(fails=self._number == 0)

    async def _meet_again(self, fails: bool) -> None:
        if fails:
            self._step(GroupMonitored(self._core.state.round, WorkerState.FAILED, (self._failure(),)))
        await self._place()

    async def settle(self) -> None:
        """Start the worker, if that was asked for, and say so."""
        if self._to_start is not None:
            started, self._to_start = self._to_start, None
            self._step(WorkersStarted(started, {0: 1}))
        await asyncio.sleep(SETTLED_S)

    async def part(self) -> None:
        self._set_alarm(None)
        self._served.cancel()
        await asyncio.wait([self._served])
        self._loop.remove_reader(self._mailbox.fileno())
        await self._channel.close()

    # --- What an agent does

    @property
    def _node(self) -> str:
        return f"node-{self._number:04}"

    async def _place(self) -> None:
        """Until there is a new one."""
        await self._placed.wait()
        self._placed.clear()

    def _hello(self) -> Hello:
        return Hello(
            job=self._job,
            node=self._node,
            incarnation=f"incarnation-of-{self._node}",
            attach_seq=1,
            job_spec=self._spec,
            node_spec=NodeSpec(local_world_size=1),
            observed=self._wishes.news.observed,
            capabilities=frozenset(Capability),
            agent_version="scoreboard/1",
        )

    def _failure(self) -> WorkerFailure:
        return WorkerFailure(node=self._node, local_rank=0, rank=0, pid=1, exit_code=1, message="exited with 1")

    def _take(self) -> None:
        for event in self._mailbox.drain():
            self._step(event)

    def _step(self, event: Event) -> None:
        output = self._core.step(event, boot_ms())
        self._set_alarm(output.next_deadline_ms)
        self._perform(output.effects)

    def _set_alarm(self, at_ms: int | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None
        if at_ms is not None:
            self._alarm = self._loop.call_later(max(at_ms - boot_ms(), 0) / 1000, self._step, TimeAdvanced())

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case HoldPort(offer_id):
                    self._hold_port(offer_id)
                case Report(observed, can_wait):
                    self._wishes.report(observed, can_wait=can_wait)
                case SetIdentity(cluster_id, job_uid, lease_id):
                    self._wishes.identity = Identity(cluster_id, job_uid, lease_id)
                case StartWorkers(assignment):
                    self._to_start = assignment.round
                    self._placed.set()
                case StopWorkers(number):
                    self._step(WorkersGone(number))
                case SetFence() | Say():
                    pass
                case _:
                    raise AssertionError(f"not in this benchmark: {effect}")

    def _hold_port(self, offer_id: int) -> None:
        if self._port is not None:
            self._port.close()
        self._port = hold_port()
        self._step(PortHeld(offer_id, Endpoint(HOST, self._port.port)))


def measure(count: int, repeats: int) -> Result:
    first, again = [], []
    with (
        crowd(count, AgentClient) as clients,
        tempfile.TemporaryDirectory(prefix="rallypoint-clients-") as folder,
        ProcessCluster(Path(folder)) as cluster,
    ):
        cluster.coordinator("--data-dir", f"{folder}/data", "--log-level", "warning")
        for rehearsal in range(REHEARSALS):
            clients.all_do("rehearse", cluster.address, rehearsal, timeout_s=TIMEOUT_S)
        for repeat in range(repeats):
            clients.all_do("connect", cluster.address, f"job-{repeat}", count, timeout_s=TIMEOUT_S)
            first.append(max(clients.time("meet", timeout_s=TIMEOUT_S)))
            clients.all_do("settle", timeout_s=TIMEOUT_S)
            again.append(max(clients.time("meet_again", timeout_s=TIMEOUT_S)))
            clients.all_do("settle", timeout_s=TIMEOUT_S)
            clients.all_do("part", timeout_s=TIMEOUT_S)
    return Result(first, again)


def main(argv: Sequence[str]) -> None:
    print(json.dumps(asdict(measure(int(argv[0]), int(argv[1])))))


if __name__ == "__main__":
    main(sys.argv[1:])
