"""A coordinator of a later release: each of its messages has more in it than an agent of today's knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.v1 import types_pb2
from support.fake_coordinator import CLUSTER_ID, JOB_UID, LEASE_ID, FakeCoordinator, FakeStream
from support.processes import is_alive
from support.protocol import Protocol, fill, later

WAIT_S = 90.0
"""How long a process may take to start, or to end its worker, on a busy machine."""


class LaterCoordinator:
    """Leads the agent that attaches to ``fake`` through a round; ``outcome`` is the state that its job ends in."""

    def __init__(self, fake: FakeCoordinator) -> None:
        self._protocol: Protocol = later()
        self._revision = 0
        stream = fake.accept_within(WAIT_S)
        assert stream is not None, "no agent attaches"
        self._stream: FakeStream = stream

    def lead(self, outcome: str) -> None:
        self._welcome(self._stream.hello.hello.job_spec)
        self._say(added_later_kind={"epoch": 1})

        # What it cannot do while it waits, it does not do.
        unknown = self._direct(added_later_kind={"epoch": 1})
        waiting = self._wait(lambda report: report.unsupported_version == unknown and report.HasField("offer"))
        assert (waiting.phase, waiting.HasField("round")) == (types_pb2.AGENT_PHASE_READY, False)

        # What it knows it does, whatever else is said with it.
        known = self._direct(run={"assignment": self._assignment(waiting.offer)})
        running = self._wait(lambda report: bool(report.workers) and _all_healthy(report))
        assert (running.phase, running.round, running.version) == (types_pb2.AGENT_PHASE_RUNNING, 0, known)

        # What it cannot do while its workers run leaves them alone.
        unknown = self._direct(added_later_kind={"epoch": 1})
        kept = self._wait(lambda report: report.unsupported_version == unknown)
        assert (kept.phase, kept.version, kept.workers) == (running.phase, known, running.workers)
        assert all(is_alive(worker.pid) for worker in kept.workers)

        stop = self._direct(stop={"round": 0, "grace_period": {"seconds": 30}})
        ended = self._wait(lambda report: report.phase == types_pb2.AGENT_PHASE_READY)
        assert ended.version == stop
        assert not any(is_alive(worker.pid) for worker in kept.workers)
        self._direct(exit={"outcome": {"state": self._protocol.number(f"JOB_STATE_{outcome}"), "reason": "NEW"}})
        self._wait_for_goodbye()

    def _welcome(self, spec: types_pb2.JobSpec) -> None:
        theirs = self._protocol.message_class("JobSpec").FromString(spec.SerializeToString())
        theirs.scale_up = self._protocol.number("SCALE_UP_ADDED_LATER")
        theirs.store_host = self._protocol.number("STORE_HOST_ADDED_LATER")
        self._say(
            welcome=self._protocol.make(
                "Welcome",
                cluster_id=CLUSTER_ID,
                job_uid=JOB_UID,
                lease_id=LEASE_ID,
                lease_ttl={"seconds": 600},
                heartbeat_interval={"seconds": 1},
                features=["time-travel"],
                job_spec=theirs,
                directive=self._directive(self._next_revision(), hold={}),
            )
        )

    def _assignment(self, offer: types_pb2.EndpointOffer) -> Any:
        endpoint = {"host": offer.endpoint.host, "port": offer.endpoint.port}
        ones = dict.fromkeys(("group_world_size", "world_size", "role_world_size"), 1)
        return self._protocol.make("Assignment", endpoint=endpoint, offer_id=offer.offer_id, **ones)

    def _direct(self, **action: Any) -> types_pb2.Version:
        revision = self._next_revision()
        self._say(directive=self._directive(revision, **action))
        return types_pb2.Version(epoch=1, revision=revision)

    def _directive(self, revision: int, **action: Any) -> Any:
        version = {"epoch": 1, "revision": revision}
        return self._protocol.make("Directive", version=version, job_uid=JOB_UID, message="so", **action)

    def _next_revision(self) -> int:
        self._revision += 1
        return self._revision

    def _say(self, **message: Any) -> None:
        """Today's classes keep what they do not know, and send it on."""
        response = fill(self._protocol.make("AttachResponse", **message))
        self._stream.send_raw(pb.AttachResponse.FromString(response.SerializeToString()))

    def _next(self) -> pb.AttachRequest:
        request = self._stream.next_within(WAIT_S)
        assert request is not None, "the agent says nothing more"
        self._say(ack={"seq": request.seq})
        return request

    def _wait(self, holds: Callable[[pb.Observed], bool]) -> pb.Observed:
        """The next report of which this is so."""
        while True:
            request = self._next()
            if request.HasField("observed") and holds(request.observed):
                return request.observed

    def _wait_for_goodbye(self) -> None:
        while not self._next().HasField("goodbye"):
            pass


def _all_healthy(report: pb.Observed) -> bool:
    return all(worker.state == types_pb2.WORKER_STATE_HEALTHY for worker in report.workers)
