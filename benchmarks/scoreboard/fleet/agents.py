"""Agents that are nothing but the protocol: each attaches on a connection of its own and does what it is directed to.

They have no workers, and say what an agent with quick ones would: each start and each stop takes a moment, and is
reported when it is done; what else there is to report takes the place of the next heartbeat. They come back as an agent
does: knocking while nobody is there, and with a growing delay while somebody is. What is measured is noted by the
:class:`Fleet` that they belong to.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from rallypoint import wire
from rallypoint.model import (
    NO_VERSION,
    Capability,
    ClockReading,
    Endpoint,
    EndpointOffer,
    Hello,
    JobSpec,
    NodeSpec,
    Observed,
    Version,
    WorkerFailure,
)
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.v1 import types_pb2 as types
from rallypoint.wire.scalars import duration_from_proto
from rallypoint_agent.link import delays
from rallypoint_agent.link.config import LinkConfig
from scoreboard.fleet.grpc_stream import GrpcStream, opening
from scoreboard.fleet.milestones import Milestone

ATTACH = "/rallypoint.v1.AgentService/Attach"
WORKER_STARTS_S = 0.02
WORKER_STOPS_S = 0.02


@dataclass
class Fleet:
    """What all agents have in common, and what they note as they go. A milestone that is None counts nothing."""

    host: str
    port: int
    spec: JobSpec
    attached: Milestone | None = None
    runs: Milestone | None = None
    """A Run for a round that is new to the agent."""
    stops: Milestone | None = None
    stopped: Milestone | None = None
    """The agent has said that its workers are gone."""
    beats_by_interval: bool = True
    """As the coordinator asks for, or else only when told to."""
    closing: bool = False
    connects: int = 0
    refused_connects: int = 0
    ends: int = 0
    """Streams that ended, by the coordinator or with it."""
    last_trailers: bytes = b""
    beats_sent: int = 0
    beat_latencies: list[float] = field(default_factory=list)

    @property
    def opening(self) -> bytes:
        return opening(ATTACH, f"{self.host}:{self.port}")


def _passed(milestone: Milestone | None) -> None:
    if milestone is not None:
        milestone.passed()


class Agent:
    """One node's. ``live`` is its life; everything else happens as messages come."""

    def __init__(self, fleet: Fleet, number: int, job: str) -> None:
        self._fleet = fleet
        self._address = f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        """Each has a machine of its own, as far as the coordinator can tell."""
        self._link = link = _link(fleet, number, job)
        self._hello = _hello(link, number)
        self.observed = self._hello.hello.observed
        """What the next report says; the Hello's own."""
        self._stream: GrpcStream | None = None
        self._ended: asyncio.Future[None] | None = None
        self._seq = 0
        self._lease_id = 0
        self._acked = (0, 0)
        self._version = NO_VERSION
        self._consumed_offer_id = 0
        self._interval_ms = fleet.spec.heartbeat_interval_ms
        self._beat: tuple[int, float] | None = None
        """The heartbeat that waits for its answer: its number, and when it was sent."""
        self._next_beat: asyncio.TimerHandle | None = None
        self._failing = False
        self._has_news = False
        """Something that can wait is still to be reported."""
        self._welcome_timeout_ms = link.welcome_timeout_ms

    @property
    def is_attached(self) -> bool:
        return self._lease_id > 0 and self._stream is not None

    # --- Attaching, again and again

    async def live(self) -> None:
        """Until the fleet closes, or the task is cancelled. No connection is left."""
        try:
            await self._come_and_go()
        finally:
            self._hang_up()

    async def _come_and_go(self) -> None:
        backoff = delays.between_attaches(self._link)
        knocks = delays.between_knocks(self._link, self._interval_ms)
        while not self._fleet.closing:
            try:
                await self._connect()
            except ConnectionRefusedError:
                self._fleet.refused_connects += 1
                await asyncio.sleep(knocks.next_s())
                continue
            except OSError:
                await asyncio.sleep(backoff.next_s())
                continue
            if await self._serve():
                backoff.reset()
                knocks = delays.between_knocks(self._link, self._interval_ms)
            if not self._fleet.closing:
                await asyncio.sleep(backoff.next_s())

    async def _connect(self) -> None:
        fleet = self._fleet
        loop = asyncio.get_running_loop()
        self._ended = ended = loop.create_future()
        self._seq, self._acked, self._beat = 0, (0, 0), None
        fleet.connects += 1

        def on_end(trailers: bytes) -> None:
            fleet.ends += not fleet.closing
            fleet.last_trailers = trailers or fleet.last_trailers
            if not ended.done():
                ended.set_result(None)

        _, self._stream = await loop.create_connection(
            lambda: GrpcStream(fleet.opening, self._take, on_end),
            fleet.host,
            fleet.port,
            local_addr=(self._address, 0),
        )

    async def _serve(self) -> bool:
        """Be on the stream until it ends. Whether it was welcomed."""
        assert self._ended is not None
        assert self._stream is not None
        hello = self._hello.hello
        hello.attach_seq += 1
        self._hello.seq = self._seq = 1
        self._has_news = False
        self._hello.clock.CopyFrom(wire.clock_to_proto(ClockReading(_clock_ms())))
        self._stream.send(self._hello.SerializeToString())
        patience_s = self._welcome_timeout_ms / 1000
        if not hello.lease_id:
            patience_s = delays.with_hello_said_s(patience_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._ended), patience_s)
        welcomed = self._acked[0] > 0
        if welcomed:
            self._welcome_timeout_ms = self._link.welcome_timeout_ms
            await self._ended
        elif not self._ended.done():
            self._welcome_timeout_ms = delays.longer_welcome_timeout_ms(self._link, self._welcome_timeout_ms)
        self._hang_up()
        return welcomed

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.abort()
            self._stream = None
        if self._next_beat is not None:
            self._next_beat.cancel()

    # --- What comes

    def _take(self, message: bytes) -> None:
        response = pb.AttachResponse.FromString(message)
        kind = response.WhichOneof("message")
        if kind == "ack":
            self._take_ack(response.ack.seq)
        elif kind == "directive":
            self._take_directive(response.directive)
        elif kind == "welcome":
            self._take_welcome(response.welcome)
        elif kind == "lease_stale":
            self._hello.hello.lease_id = 0

    def _take_ack(self, seq: int) -> None:
        self._acked = (seq, _clock_ms())
        if self._beat is not None and seq >= self._beat[0]:
            self._fleet.beat_latencies.append(time.perf_counter() - self._beat[1])
            self._beat = None

    def _take_welcome(self, welcome: pb.Welcome) -> None:
        hello = self._hello.hello
        hello.cluster_id, hello.job_uid = welcome.cluster_id, welcome.job_uid
        hello.lease_id = self._lease_id = welcome.lease_id
        self._acked = (1, _clock_ms())
        self._interval_ms = duration_from_proto(welcome.heartbeat_interval)
        self._schedule_beat(delays.to_first_beat_s(self._interval_ms / 1000))
        _passed(self._fleet.attached)
        self._take_directive(welcome.directive)

    def _take_directive(self, directive: pb.Directive) -> None:
        version = Version(directive.version.epoch, directive.version.revision)
        if version <= self._version:
            return
        self._version = version
        self._hello.hello.highest_version.CopyFrom(directive.version)
        self.observed.version.CopyFrom(directive.version)
        self._consumed_offer_id = max(self._consumed_offer_id, directive.consumed_offer_id)
        action = directive.WhichOneof("action")
        if action == "run":
            self._take_run(directive.run.assignment)
        elif action == "stop":
            _passed(self._fleet.stops)
            self._stop()
        elif action in ("hold", "drain", "exit") and self.observed.phase == types.AGENT_PHASE_RUNNING:
            self._stop()
        else:
            self._offer_and_report(can_wait=True)

    # --- What is done

    def _take_run(self, assignment: types.Assignment) -> None:
        if self.observed.HasField("round") and assignment.round <= self.observed.round:
            self._offer_and_report(can_wait=True)
            return
        _passed(self._fleet.runs)
        observed = self.observed
        observed.phase, observed.round = types.AGENT_PHASE_RUNNING, assignment.round
        observed.assignment.CopyFrom(assignment)
        self._consumed_offer_id = max(self._consumed_offer_id, assignment.offer_id)
        del observed.failures[:], observed.workers[:]
        observed.workers.add(local_rank=0, rank=assignment.first_rank, state=types.WORKER_STATE_INIT)
        self._has_news = True
        asyncio.get_running_loop().call_later(WORKER_STARTS_S, self._started, assignment.round)

    def _started(self, number: int) -> None:
        if self.observed.round != number or self.observed.phase != types.AGENT_PHASE_RUNNING:
            return
        worker = self.observed.workers[0]
        worker.pid, worker.state = 4_000, types.WORKER_STATE_HEALTHY
        self._report()

    def fail(self) -> None:
        """Its worker exits with 1."""
        observed = self.observed
        failure = WorkerFailure(
            node=self._hello.hello.node,
            local_rank=0,
            rank=observed.workers[0].rank,
            pid=observed.workers[0].pid,
            exit_code=1,
            message="exited with 1",
            fail_time_ms=time.time_ns() // 1_000_000,
            fail_clock_ms=_clock_ms(),
        )
        observed.failures.append(wire.failure_to_proto(failure))
        observed.workers[0].state = types.WORKER_STATE_FAILED
        self._failing = True
        self._stop()

    def _stop(self) -> None:
        if self.observed.phase == types.AGENT_PHASE_STOPPING:
            return
        if self.observed.phase != types.AGENT_PHASE_RUNNING:
            self.observed.phase = types.AGENT_PHASE_READY
            self._offer_and_report()
            return
        self.observed.phase = types.AGENT_PHASE_STOPPING
        if self._failing:
            self._report()
        else:
            self._has_news = True
        asyncio.get_running_loop().call_later(WORKER_STOPS_S, self._stopped)

    def _stopped(self) -> None:
        self.observed.phase = types.AGENT_PHASE_FAILED if self._failing else types.AGENT_PHASE_READY
        if not self._failing:
            self.observed.workers[0].state = types.WORKER_STATE_STOPPED
        self._failing = False
        self._offer_and_report()
        _passed(self._fleet.stopped)

    def _offer_and_report(self, *, can_wait: bool = False) -> None:
        """With a port that no round has used; a new one cannot wait."""
        offer = self.observed.offer
        if self.observed.phase != types.AGENT_PHASE_RUNNING and offer.offer_id <= self._consumed_offer_id:
            offer.offer_id = self._consumed_offer_id + 1
            can_wait = False
        if can_wait:
            self._has_news = True
        else:
            self._report()

    # --- What is said

    def _schedule_beat(self, after_s: float) -> None:
        self._next_beat = asyncio.get_running_loop().call_later(after_s, self._interval_over)

    def _interval_over(self) -> None:
        self._schedule_beat(self._interval_ms / 1000)
        if self._fleet.beats_by_interval:
            self.beat()

    def beat(self) -> None:
        """A heartbeat, or a report in its place, if the agent is attached."""
        if self._stream is None or not self._acked[0]:
            return
        request = self._request()
        if self._has_news:
            self._has_news = False
            request.observed.CopyFrom(self.observed)
        else:
            request.heartbeat.version.CopyFrom(self.observed.version)
        self._fleet.beats_sent += 1
        if self._beat is None:
            self._beat = (request.seq, time.perf_counter())
        self._stream.send(request.SerializeToString())

    def expect_no_answer(self) -> None:
        """An acknowledgement that went out shortly before a heartbeat may stand in for that one's own."""
        self._beat = None

    def _report(self) -> None:
        """While it is not attached the next Hello says it; or a heartbeat, if that Hello has gone out already."""
        if self._stream is None or not self._acked[0]:
            self._has_news = True
            return
        self._has_news = False
        request = self._request()
        request.observed.CopyFrom(self.observed)
        self._stream.send(request.SerializeToString())

    def _request(self) -> pb.AttachRequest:
        self._seq += 1
        clock = wire.clock_to_proto(ClockReading(_clock_ms(), *self._acked))
        return pb.AttachRequest(lease_id=self._lease_id, seq=self._seq, clock=clock)


def _link(fleet: Fleet, number: int, job: str) -> LinkConfig:
    """What a real agent's link would be told."""
    return LinkConfig(
        endpoints=(Endpoint(fleet.host, fleet.port),),
        job=job,
        node=f"node-{number:06}",
        incarnation=f"incarnation-{number:06}",
        job_spec=fleet.spec,
        node_spec=NodeSpec(hostname=f"node-{number:06}", entrypoint="train.py"),
        agent_version="scoreboard/1",
        capabilities=frozenset(Capability),
    )


def _hello(link: LinkConfig, number: int) -> pb.AttachRequest:
    hello = Hello(
        job=link.job,
        node=link.node,
        incarnation=link.incarnation,
        attach_seq=0,
        job_spec=link.job_spec,
        node_spec=link.node_spec,
        observed=Observed(offer=EndpointOffer(1, Endpoint("127.0.0.1", 40_000 + number % 10_000))),
        capabilities=link.capabilities,
        agent_version=link.agent_version,
    )
    return wire.attach_request_to_proto(hello, lease_id=0, seq=1, clock=ClockReading(0))


def _clock_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
