"""Agents without workers that come and go by the thousand: what each may leave in the coordinator adds up to be seen.

Real agents take seconds and a whole process to come back. An hour of them is some 1,500 departures: a KiB that each
would leave is less than memory goes up and down by itself. These here are the protocol alone, some ten a second.
"""

from __future__ import annotations

import asyncio
import traceback
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import grpc
import grpc.aio

from rallypoint.model import JobSpec
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.v1 import job_service_pb2, types_pb2
from rallypoint.v1.agent_service_pb2_grpc import AgentServiceStub
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from scoreboard.fleet.agents import Agent, Fleet
from soak.job import Setting
from soak.view import CHANNEL, ONCE_S, PATIENCE_S

JOBS = 6
NODES = 4
GAP_S = 0.4
"""Between two changes of one job, on average; those of short ones likewise."""
LOOK_EVERY_S = 0.02
SHORT_NODES = 2
NODES_OF_A_JOB = 1 << 20
"""Their names' numbers: more than an hour has seconds."""


class MadeUp(Agent):
    """An incarnation of its own, that can end in each of the ways in which agents do."""

    def __init__(self, fleet: Fleet, number: int, job: str) -> None:
        super().__init__(fleet, number, job)
        self.number = number
        self._hello.hello.incarnation = uuid.uuid4().hex
        self.is_told_to_exit = False
        self._life = asyncio.create_task(self.live())

    @property
    def runs(self) -> bool:
        workers = self.observed.workers
        healthy = bool(workers) and workers[0].state == types_pb2.WORKER_STATE_HEALTHY
        return self.is_welcome and healthy and self.observed.phase == types_pb2.AGENT_PHASE_RUNNING

    @property
    def is_welcome(self) -> bool:
        """Attached, and not only by what it was told on an earlier stream."""
        return self.is_attached and self._acked[0] > 0

    @property
    def obituary(self) -> pb.ReportGoneRequest:
        hello = self._hello.hello
        return pb.ReportGoneRequest(
            job=hello.job,
            job_uid=hello.job_uid,
            lease_id=self._lease_id,
            incarnation=hello.incarnation,
            message="it was made up, and is no more",
        )

    def cut(self) -> None:
        """Its connection breaks; it comes back."""
        if self._stream is not None:
            self._stream.abort()

    def succeed(self) -> None:
        self.observed.phase = types_pb2.AGENT_PHASE_SUCCEEDED
        self.observed.workers[0].state = types_pb2.WORKER_STATE_SUCCEEDED
        self._report()

    async def leave(self) -> None:
        """With a goodbye, if it is attached, on which the coordinator ends the stream."""
        if self._stream is not None and self._ended is not None and self.is_welcome:
            request = self._request()
            request.goodbye.reason = "MADE_UP"
            self._stream.send(request.SerializeToString())
            await asyncio.wait({self._ended}, timeout=ONCE_S)
        await self.die()

    async def die(self) -> None:
        """Asked again until it is over: ``wait_for`` before Python 3.12 drops a cancellation as its stream ends."""
        while not self._life.done():
            self._life.cancel()
            await asyncio.wait({self._life}, timeout=LOOK_EVERY_S)

    def _take_directive(self, directive: pb.Directive) -> None:
        self.is_told_to_exit |= directive.WhichOneof("action") == "exit"
        super()._take_directive(directive)


class Turmoil:
    """``JOBS`` jobs of made-up agents that change all the time, and short ones. ``run`` is a thread's."""

    def __init__(self, setting: Setting, rng: Random) -> None:
        self._setting = setting
        self._address = setting.cluster.address
        self._rng = rng
        self.changes: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self) -> None:
        try:
            asyncio.run(self._churn())
        except* Exception as group:
            traceback.print_exception(group)
            self.wrong += [f"made-up agents: {type(error).__name__}: {error}" for error in group.exceptions]

    async def _churn(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(JOBS):
                tasks.create_task(ChangingJob(self, number).change_until_stopped())
            tasks.create_task(self._short_jobs())

    async def pause(self) -> bool:
        """Whether to go on after it."""
        await asyncio.sleep(self._rng.expovariate(1 / GAP_S))
        return not self._setting.stop.is_set()

    def choice(self, among: list[Any]) -> Any:
        return self._rng.choice(among)

    def fleet(self, min_nodes: int, max_nodes: int) -> Fleet:
        host, _, port = self._address.rpartition(":")
        spec = JobSpec(min_nodes=min_nodes, max_nodes=max_nodes, max_restarts=1_000_000, last_call_timeout_ms=0)
        return Fleet(host, int(port), spec)

    async def asked(self, ask: Callable[[grpc.aio.Channel], Awaitable[object]]) -> None:
        """On a connection of its own, again until it is answered: the coordinator may be away."""
        deadline_s = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            async with grpc.aio.insecure_channel(self._address, options=CHANNEL) as channel:
                try:
                    await ask(channel)
                    return
                except grpc.aio.AioRpcError:
                    if asyncio.get_running_loop().time() > deadline_s:
                        raise
            await asyncio.sleep(LOOK_EVERY_S)

    async def _short_jobs(self) -> None:
        while await self.pause():
            await self._short_job(f"made-up-short-{self.changes['short job']}")
            self.changes["short job"] += 1

    async def _short_job(self, name: str) -> None:
        """It ends well, and is to be forgotten."""
        fleet = self.fleet(SHORT_NODES, SHORT_NODES)
        agents = [MadeUp(fleet, node, name) for node in range(SHORT_NODES)]
        await wait(lambda: all(agent.runs for agent in agents), f"{name} runs")
        for agent in agents:
            agent.succeed()
        await wait(lambda: all(agent.is_told_to_exit for agent in agents), f"the agents of {name} are told to exit")
        for agent in agents:
            await agent.leave()


class ChangingJob:
    """One of them: at each turn something happens to one of its agents, and then all run again."""

    def __init__(self, turmoil: Turmoil, number: int) -> None:
        self._turmoil = turmoil
        self._name = f"made-up-{number}"
        self._fleet = turmoil.fleet(NODES // 2, NODES)
        self._next_node = NODES_OF_A_JOB * (number + 1)
        self._agents: list[MadeUp] = []
        self._changes: dict[str, Callable[[MadeUp], Awaitable[None]]] = {
            "connection cut": self._cut,
            "worker failure": self._fail,
            "agent killed, and back": self._come_back,
            "agent that left, and is back": self._leave,
            "watch": self._watch,
        }
        if number == 0:
            # All of them in one job: it remembers 1,000 nodes that are gone, and is to do so before the second half.
            self._changes = {"agent killed, another node instead": self._be_replaced}

    async def change_until_stopped(self) -> None:
        self._agents = [self._another() for _ in range(NODES)]
        try:
            await self._all_run()
            while await self._turmoil.pause():
                what = self._turmoil.choice(list(self._changes))
                await self._changes[what](self._turmoil.choice(self._agents))
                await self._all_run()
                self._turmoil.changes[what] += 1
        finally:
            for agent in self._agents:
                await agent.die()

    async def _all_run(self) -> None:
        await wait(lambda: all(agent.runs for agent in self._agents), f"all of {self._name} run")

    def _another(self, node: int | None = None) -> MadeUp:
        if node is None:
            node, self._next_node = self._next_node, self._next_node + 1
        return MadeUp(self._fleet, node, self._name)

    async def _cut(self, agent: MadeUp) -> None:
        agent.cut()

    async def _fail(self, agent: MadeUp) -> None:
        before = agent.observed.round
        agent.fail()
        await wait(lambda: agent.observed.round > before, f"{self._name} goes on after round {before}")

    async def _come_back(self, agent: MadeUp) -> None:
        await self._kill(agent)
        self._put(agent, self._another(agent.number))

    async def _be_replaced(self, agent: MadeUp) -> None:
        await self._kill(agent)
        self._put(agent, self._another())

    async def _kill(self, agent: MadeUp) -> None:
        await agent.die()
        obituary = agent.obituary
        await self._turmoil.asked(lambda channel: AgentServiceStub(channel).ReportGone(obituary, timeout=ONCE_S))

    async def _leave(self, agent: MadeUp) -> None:
        """What it says may not be heard by a coordinator that ends; an obituary is."""
        await agent.leave()
        await self._come_back(agent)

    def _put(self, old: MadeUp, new: MadeUp) -> None:
        self._agents[self._agents.index(old)] = new

    async def _watch(self, agent: MadeUp) -> None:
        request = job_service_pb2.WatchJobRequest(name=f"jobs/{self._name}")

        async def look(channel: grpc.aio.Channel) -> None:
            stub: Any = JobServiceStub(channel)
            call = stub.WatchJob(request, timeout=ONCE_S)
            await call.read()
            call.cancel()

        await self._turmoil.asked(look)


async def wait(is_so: Callable[[], bool], what: str) -> None:
    """AssertionError if it does not become so."""
    deadline_s = asyncio.get_running_loop().time() + PATIENCE_S
    while not is_so():
        if asyncio.get_running_loop().time() > deadline_s:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")
        await asyncio.sleep(LOOK_EVERY_S)
