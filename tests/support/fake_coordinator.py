"""A coordinator that says what a test tells it to, to an agent that is real.

Served by gRPC's threads: an event loop of its own in the process of the test would share a poller with the link's.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from rallypoint.errors import Refusal
from rallypoint.model import Directive, Endpoint, Hold, JobSpec, Version, Welcome
from rallypoint.rpc_status import DETAILS_KEY, to_status
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.v1.agent_service_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from rallypoint.wire import Ack, CoordinatorMessage, attach_response_to_proto
from rallypoint_agent.rendezvous_port import hold_port

WAIT_S = 20.0
"""How long to wait for what must happen."""

QUIET_S = 0.2
"""How long to watch that something does not happen."""

CLUSTER_ID = "cluster-1"
JOB_UID = "uid-1"
LEASE_ID = 7
FIRST_DIRECTIVE = Directive(version=Version(1, 1), job_uid=JOB_UID, reason="R", message="wait", action=Hold())


@contextlib.contextmanager
def refusing_endpoint() -> Iterator[Endpoint]:
    """Where nobody listens, and nobody else can."""
    with contextlib.closing(hold_port()) as held:
        yield Endpoint("127.0.0.1", held.port)


class FakeStream:
    """One Attach, as the test plays the coordinator's side of it. ``hello`` is the agent's first message."""

    def __init__(self, requests: Iterator[pb.AttachRequest], context: grpc.ServicerContext) -> None:
        self._requests: queue.Queue[pb.AttachRequest | None] = queue.Queue()
        self._responses: queue.Queue[pb.AttachResponse | Refusal | grpc.StatusCode | None] = queue.Queue()
        context.add_callback(self.end)
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        self.hello = self.next()

    def next(self) -> pb.AttachRequest:
        """The agent's next message; it must come."""
        request = self._requests.get(timeout=WAIT_S)
        assert request is not None, "the agent's side has ended"
        return request

    def next_of(self, kind: str) -> pb.AttachRequest:
        """The next message of this kind."""
        while (request := self.next()).WhichOneof("message") != kind:
            pass
        return request

    def next_within(self, seconds: float) -> pb.AttachRequest | None:
        """The agent's next message, if it says anything for so long."""
        try:
            return self._requests.get(timeout=seconds)
        except queue.Empty:
            return None

    def wait_for_silence(self) -> None:
        """Until the agent has said nothing for a while."""
        for _ in range(100):
            if self.next_within(QUIET_S) is None:
                return
        raise AssertionError("the agent does not stop talking")

    def send(self, message: CoordinatorMessage) -> None:
        self.send_raw(attach_response_to_proto(message))

    def send_raw(self, response: pb.AttachResponse) -> None:
        self._responses.put(response)

    def ack(self, seq: int) -> None:
        self.send(Ack(seq))

    def welcome(
        self,
        *,
        heartbeat_interval_ms: int = 60_000,
        lease_id: int = LEASE_ID,
        directive: Directive = FIRST_DIRECTIVE,
    ) -> Welcome:
        welcome = Welcome(
            cluster_id=CLUSTER_ID,
            job_uid=JOB_UID,
            lease_id=lease_id,
            lease_ttl_ms=30_000,
            heartbeat_interval_ms=heartbeat_interval_ms,
            job_spec=JobSpec(),
            directive=directive,
        )
        self.send(welcome)
        return welcome

    def refuse(self, refusal: Refusal) -> None:
        self._responses.put(refusal)

    def fail(self, code: grpc.StatusCode) -> None:
        """End it with a status that is not ours."""
        self._responses.put(code)

    def end(self) -> None:
        self._responses.put(None)

    def _read(self, requests: Iterator[pb.AttachRequest]) -> None:
        try:
            for request in requests:
                self._requests.put(request)
        except grpc.RpcError:
            pass  # the agent's side broke; None says that it is over
        self._requests.put(None)

    def answer(self, context: grpc.ServicerContext) -> Iterator[pb.AttachResponse]:
        while (response := self._responses.get()) is not None:
            if isinstance(response, Refusal):
                abort(context, response)
            elif isinstance(response, grpc.StatusCode):
                context.abort(response, "not of our making")
            else:
                yield response


class FakeCoordinator(AgentServiceServicer):
    """Listens on loopback, on a port that nobody else gets between ``stop`` and ``start``. ``close`` it in the end."""

    def __init__(self) -> None:
        self._streams: queue.Queue[FakeStream] = queue.Queue()
        self.obituaries: queue.Queue[pb.ReportGoneRequest] = queue.Queue()
        self.obituary_refusals: list[Refusal] = []
        """What the next obituaries meet, first one first."""
        self._held = hold_port()
        self.endpoint = Endpoint("127.0.0.1", self._held.port)
        self._server: grpc.Server | None = None
        self.start()

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(max_workers=16), options=[("grpc.so_reuseport", 0)])
        add_AgentServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"127.0.0.1:{self.endpoint.port}")
        self._server.start()

    def stop(self) -> None:
        """End every stream and the listener: connects are refused."""
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None

    def close(self) -> None:
        self.stop()
        self._held.close()

    def accept(self) -> FakeStream:
        """The next stream; it must come."""
        return self._streams.get(timeout=WAIT_S)

    def accept_within(self, seconds: float) -> FakeStream | None:
        try:
            return self._streams.get(timeout=seconds)
        except queue.Empty:
            return None

    def Attach(
        self, request_iterator: Iterator[pb.AttachRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.AttachResponse]:
        stream = FakeStream(request_iterator, context)
        self._streams.put(stream)
        yield from stream.answer(context)

    def ReportGone(self, request: pb.ReportGoneRequest, context: grpc.ServicerContext) -> pb.ReportGoneResponse:
        self.obituaries.put(request)
        if self.obituary_refusals:
            abort(context, self.obituary_refusals.pop(0))
        return pb.ReportGoneResponse(was_news=True)


def abort(context: grpc.ServicerContext, refusal: Refusal) -> None:
    """End it with the refusal. Raises, always."""
    context.set_trailing_metadata(((DETAILS_KEY, to_status(refusal).SerializeToString()),))
    context.abort(grpc.StatusCode[refusal.code], refusal.message)
