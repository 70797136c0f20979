"""What a coordinator, or who poses as one, says to an agent: its stream takes it, its core decides about the workers.

An input is steps: an AttachResponse, time that passes, the agent's own workers. The stream ends or goes on, the agent's
core takes everything, never has workers of two rounds, and all that it reports in answer can be said.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from random import Random
from typing import Any

from google.protobuf.message import DecodeError

from fuzz.messages import changed
from fuzz.script import Step, pack, unpack
from fuzz.target import Target, demand
from rallypoint import wire
from rallypoint.model import (
    Assignment,
    Directive,
    Drain,
    Endpoint,
    Exit,
    Hello,
    Hold,
    JobSpec,
    JobState,
    Keep,
    NodeSpec,
    Outcome,
    Run,
    Stop,
    Version,
    Welcome,
    WorkerState,
)
from rallypoint.v1 import agent_service_pb2
from rallypoint_agent.core.effects import Effect, HoldPort, Report, StartWorkers, StopWorkers
from rallypoint_agent.core.events import (
    Detached,
    Event,
    GroupMonitored,
    PortHeld,
    TimeAdvanced,
    WorkersGone,
    WorkersStarted,
)
from rallypoint_agent.core.machine import AgentCore
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.link.mailbox import Mailbox
from rallypoint_agent.link.stream import Broken, Left, Refused, Stale, Stream
from rallypoint_agent.link.wishes import Wishes

_SPEC = JobSpec(min_nodes=1, max_nodes=2, max_restarts=2)
_CONFIG = AgentConfig(node="a", local_world_size=2, job_spec=_SPEC, connect_timeout_ms=60_000, start_ms=0)
_SAY, _WAIT, _WORK = range(3)
_UID = "uid"


def check(data: bytes) -> None:
    _loop().run_until_complete(_Agent().play(data))


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@functools.cache
def _mailbox() -> Mailbox:
    return Mailbox()


class _Agent:
    """The core, with a shell that does at once what it is asked to, and a stream at which a Hello was sent."""

    def __init__(self) -> None:
        self._core = AgentCore(_CONFIG)
        self._now_ms = 0
        self._alive: int | None = None
        _mailbox().drain()

    async def play(self, data: bytes) -> None:
        self._feed(TimeAdvanced())
        self._attach()
        for step in unpack(data):
            kind = step.kind % 3
            if kind == _SAY:
                self._hear(step.data)
            elif kind == _WAIT:
                self._now_ms += int.from_bytes(step.data[:3], "big")
                self._feed(TimeAdvanced())
            else:
                self._work(step.data)

    def _attach(self) -> None:
        call: Any = None  # Nothing is written or read here: what is said is given to the stream.
        self._stream = Stream(call, _hello, Wishes(), _mailbox())
        self._stream._sent.number(self._now_ms)

    def _hear(self, data: bytes) -> None:
        try:
            response = agent_service_pb2.AttachResponse.FromString(data)
        except DecodeError:
            end: object = Broken("gRPC ends the stream")
        else:
            end = self._stream._take(response)
        for event in _mailbox().drain():
            self._feed(event)
        if end is not None:
            demand(isinstance(end, Broken | Refused | Stale | Left), f"the stream ends with {end}")
            self._feed(Detached())
            self._attach()

    def _work(self, data: bytes) -> None:
        """Something of the workers, if there are any."""
        if self._alive is None:
            return
        states = list(WorkerState)
        self._feed(GroupMonitored(self._alive, states[(data or b"\0")[0] % len(states)], ()))

    def _feed(self, event: Event) -> None:
        waiting = deque([event])
        while waiting:
            out = self._core.step(waiting.popleft(), self._now_ms)
            for effect in out.effects:
                waiting.extend(self._perform(effect))

    def _perform(self, effect: Effect) -> list[Event]:
        """What comes of it."""
        if isinstance(effect, HoldPort):
            return [PortHeld(effect.offer_id, Endpoint("10.0.0.1", 4000))]
        if isinstance(effect, StartWorkers):
            demand(self._alive is None, f"{effect} while round {self._alive} is alive")
            self._alive = effect.assignment.round
            return [WorkersStarted(self._alive, {0: 100, 1: 101})]
        if isinstance(effect, StopWorkers) and self._alive is not None:
            gone, self._alive = self._alive, None
            return [WorkersGone(gone, ())]
        if isinstance(effect, Report):
            wire.attach_request_to_proto(effect.observed, lease_id=1, seq=2, clock=None).SerializeToString()
        return []


def _hello() -> Hello:
    return Hello(job="train", node="a", incarnation="i", attach_seq=1, job_spec=_SPEC, node_spec=NodeSpec())


# --- inputs


def _welcome(rng: Random) -> Welcome:
    return Welcome(
        cluster_id="c", job_uid=_UID, lease_id=rng.choice((1, 1, 1, 2)), lease_ttl_ms=30_000,
        heartbeat_interval_ms=5_000, job_spec=_SPEC, directive=_directive(rng),
    )  # fmt: skip


def _directive(rng: Random) -> Directive:
    number = rng.choice((0, 0, 1, 2))
    assignment = Assignment(
        round=number, restart_count=0, group_rank=0, group_world_size=1, first_rank=0, world_size=2,
        first_role_rank=0, role_world_size=2, endpoint=Endpoint("10.0.0.1", 4000), offer_id=rng.choice((1, 1, 2)),
    )  # fmt: skip
    outcome = Outcome(state=JobState.SUCCEEDED, reason="R", message="m")
    actions = (Hold(), Keep(), Run(assignment), Run(assignment), Stop(number, 1_000), Drain(1_000), Exit(outcome), None)
    version = Version(1, rng.randint(1, 20))
    return Directive(version=version, job_uid=_UID, reason="R", message="m", action=rng.choice(actions))


def generate(rng: Random) -> bytes:
    steps = [] if rng.random() < 0.1 else [_say(rng, _welcome(rng))]
    steps.extend(_step(rng) for _ in range(rng.choice((1, 2, 4, 8))))
    return pack(steps)


def _step(rng: Random) -> Step:
    chance = rng.random()
    if chance < 0.15:
        return Step(_WAIT, rng.choice((1, 26_000, 30_000, 4_000_000)).to_bytes(3, "big"))
    if chance < 0.3:
        return Step(_WORK, bytes([rng.randrange(8)]))
    messages = (_directive(rng), _directive(rng), _directive(rng), _welcome(rng), wire.Ack(1), wire.LeaseStale("old"))
    return _say(rng, rng.choice(messages))


def _say(rng: Random, message: wire.CoordinatorMessage) -> Step:
    proto = wire.attach_response_to_proto(message)
    data = proto.SerializeToString() if rng.random() < 0.5 else changed(rng, proto)
    return Step(_SAY, data[:65535])


TARGET = Target(check=check, generate=generate)
