"""An agent and a client that speak another release's protocol, made of its descriptors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import grpc.aio

from rallypoint.errors import Refusal
from support.protocol import Protocol
from support.wire_client import BEAT_S, TIMEOUT_S, Coordinator, refusal_of
from support.wire_client import SPEC as NO_RESTARTS

JOB = "train"
NODE = "node-of-another-release"
INCARNATION = "incarnation-of-another-release"
SPEC = replace(NO_RESTARTS, max_restarts=2, lease_ttl_ms=15_000)
"""Who does not know of the directive in a Welcome is told once a heartbeat interval, 2.5 s, is over."""


@dataclass
class Agent:
    """An agent that speaks another release's protocol: two workers, of which it only says that they are there."""

    protocol: Protocol
    coordinator: Coordinator
    attach_seq: int = 0
    lease_id: int = 0
    offer_id: int = 1
    seq: int = 0
    directive: Any = None
    welcome: Any = None
    _obeyed: Any = None
    _call: Any = field(init=False)

    async def attach(self, first: Any = None) -> Any:
        """On a new stream; the Welcome."""
        self._call = self.protocol.stub(self.coordinator.channel, "AgentService").Attach(timeout=TIMEOUT_S)
        first = first or self.hello()
        self.attach_seq, self.seq = first.attach_seq, 0
        await self.send(hello=first)
        self.welcome = await self.receive("welcome")
        self.lease_id = self.welcome.lease_id
        return self.welcome

    def hello(self, **observed: Any) -> Any:
        """The next one: what :meth:`observed` makes of the arguments is in it."""
        known = self.welcome or self.protocol.make("Welcome")
        return self.protocol.make(
            "Hello",
            protocol_version=1,
            capabilities=[1, 2, 3, 4],
            agent_version="an-earlier-agent/0",
            cluster_id=known.cluster_id,
            job=JOB,
            job_uid=known.job_uid,
            node=NODE,
            incarnation=INCARNATION,
            attach_seq=self.attach_seq + 1,
            lease_id=self.lease_id,
            job_spec=self.job_spec(),
            node_spec={"local_world_size": 2},
            observed=self.observed(**(observed or {"phase": "READY"})),
        )

    def job_spec(self) -> Any:
        spec = self.protocol.make("JobSpec", min_nodes=2, max_nodes=2, max_restarts=SPEC.max_restarts)
        spec.lease_ttl.FromMilliseconds(SPEC.lease_ttl_ms)
        spec.last_call_timeout.FromMilliseconds(SPEC.last_call_timeout_ms)
        return spec

    def observed(self, phase: str, round: int | None = None, state: str = "", **more: Any) -> Any:
        """What is reported; ``state`` is that of both workers, if there are any."""
        version = self.directive.version if self.directive else None
        endpoint = {"host": "127.0.0.1", "port": 41_000 + self.offer_id}
        number = self.protocol.number(f"AGENT_PHASE_{phase}")
        observed = self.protocol.make("Observed", phase=number, round=round, version=version, **more)
        observed.offer.CopyFrom(self.protocol.make("EndpointOffer", offer_id=self.offer_id, endpoint=endpoint))
        for local_rank in range(2 if state else 0):
            observed.workers.add(
                local_rank=local_rank, pid=100 + local_rank, state=self.protocol.number(f"WORKER_STATE_{state}")
            )
        return observed

    async def report(self, phase: str, round: int, state: str, **more: Any) -> None:
        await self.send(observed=self.observed(phase, round, state, **more))
        await self.heard()

    async def send(self, **message: Any) -> None:
        self.seq += 1
        await self._call.write(self.protocol.make("AttachRequest", lease_id=self.lease_id, seq=self.seq, **message))

    async def receive(self, kind: str) -> Any:
        """What the next message of a kind says; others are passed over."""
        while True:
            response = await self._call.read()
            assert response is not grpc.aio.EOF, f"the stream ended: {await self._call.code()}"
            found = response.WhichOneof("message")
            if found == "directive":
                self.directive = response.directive
            if found == "welcome" and "directive" in response.welcome.DESCRIPTOR.fields_by_name:
                self.directive = response.welcome.directive
            if found == kind:
                return getattr(response, kind)

    async def told(self, action: str) -> Any:
        """The details of the newest directive once it is of this kind; each counts once.

        An agent that does not know of the one in the Welcome is told with a heartbeat, as all that seem to be behind.
        """
        while self.directive is self._obeyed or self.directive.WhichOneof("action") != action:
            await self._beat_until("directive")
        self._obeyed = self.directive
        return getattr(self.directive, action)

    async def heard(self) -> None:
        """Until all that was said is acknowledged: by itself, or with a heartbeat that follows."""
        while (await self._beat_until("ack")).seq < self.seq:
            pass

    async def _beat_until(self, kind: str) -> Any:
        """What the next message of a kind says, with heartbeats until it comes."""
        reading = asyncio.ensure_future(self.receive(kind))
        while not (await asyncio.wait({reading}, timeout=BEAT_S))[0]:
            version = self.directive.version if self.directive else None
            await self.send(heartbeat=self.protocol.make("Heartbeat", version=version))
        return await reading

    async def acked(self) -> None:
        while (await self.receive("ack")).seq < self.seq:
            pass

    async def leave(self, reason: str) -> None:
        await self.send(goodbye=self.protocol.make("Goodbye", reason=reason))
        await self.acked()
        assert await self._call.read() is grpc.aio.EOF
        assert await self._call.code() is grpc.StatusCode.OK

    def lose_connection(self) -> None:
        self._call.cancel()

    async def refusal(self) -> Refusal:
        return await refusal_of(self.receive("nothing"))


@dataclass
class Reader:
    """A client that speaks another release's protocol."""

    protocol: Protocol
    coordinator: Coordinator

    @property
    def jobs(self) -> Any:
        return self.protocol.stub(self.coordinator.channel, "JobService")

    async def ask(self, method: str, /, **request: Any) -> Any:
        return await getattr(self.jobs, method)(self.protocol.make(f"{method}Request", **request), timeout=TIMEOUT_S)

    async def job(self) -> Any:
        return (await self.ask("GetJob", name=f"jobs/{JOB}")).job

    async def job_state(self) -> str:
        return self.protocol.word(await self.job(), "state")

    async def nodes(self) -> dict[str, str]:
        """Their states by their names."""
        nodes = (await self.ask("ListNodes", parent=f"jobs/{JOB}")).nodes
        return {node.name.rpartition("/")[2]: self.protocol.word(node, "state") for node in nodes}

    async def watch(self) -> tuple[str, list[str]]:
        """The job's state when it began, and the kinds of the events until the job was decided."""
        state, kinds = "", []
        request = self.protocol.make("WatchJobRequest", name=f"jobs/{JOB}")
        async for message in self.jobs.WatchJob(request, timeout=3 * TIMEOUT_S):
            if message.HasField("snapshot"):
                state = self.protocol.word(message.snapshot, "state")
            kinds += [self.protocol.word(event, "kind") for event in message.events]
        return state, kinds
