"""The link when its stream breaks, is refused, or cannot come to be."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc
import pytest

from rallypoint.endpoints import target
from rallypoint.errors import Reason, Refusal
from rallypoint.model import AgentPhase, Endpoint, Hello, Version
from rallypoint.v1 import agent_service_pb2 as pb
from rallypoint.v1.agent_service_pb2_grpc import AgentServiceStub
from rallypoint.wire import LeaseStale, hello_from_proto
from rallypoint_agent.core.events import (
    Attached,
    AttachRefused,
    ConnectionsRefused,
    Detached,
    DirectiveReceived,
    LeaseStaleReceived,
)
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.link.mailbox import Mailbox
from rallypoint_agent.link.stream import Refused, Stream
from rallypoint_agent.link.wishes import Wishes
from support.fake_coordinator import (
    CLUSTER_ID,
    JOB_UID,
    LEASE_ID,
    QUIET_S,
    WAIT_S,
    FakeCoordinator,
    abort,
    refusing_endpoint,
)
from support.link_agent import (
    Agent,
    attaching,
    directive,
    endpoint_of,
    observed,
    silent_listener,
)
from support.wire_client import hello

BUSY = Refusal(reason=Reason.NODE_NAME_BUSY, message="not yet", retry_after_ms=1_000)
MISMATCH = Refusal(reason=Reason.SPEC_MISMATCH, message="other spec", field="hello.job_spec.min_nodes")


class ShutDoor(FakeCoordinator):
    """Refuses every agent before it reads what it says."""

    def __init__(self) -> None:
        self.refused = threading.Semaphore(0)
        super().__init__()

    def Attach(
        self, request_iterator: Iterator[pb.AttachRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.AttachResponse]:
        context.add_callback(self.refused.release)
        abort(context, MISMATCH)
        yield pb.AttachResponse()


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    with contextlib.closing(FakeCoordinator()) as fake:
        yield fake


@pytest.fixture
def refusing() -> Iterator[Endpoint]:
    with refusing_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def attach() -> Iterator[Callable[..., Agent]]:
    with attaching() as start:
        yield start


# --- Breaks


def test_attaches_again_after_a_restart_with_all_it_knows(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome(directive=directive(9))
    agent.next(DirectiveReceived)
    agent.link.report(observed(9, AgentPhase.SUCCEEDED))
    stream.next_of("observed")
    began_ms = boot_ms()
    coordinator.stop()
    agent.next(Detached)
    assert began_ms <= agent.next(ConnectionsRefused).probe_sent_ms <= boot_ms()
    coordinator.start()
    hello = hello_from_proto(coordinator.accept().hello.hello)
    assert hello.attach_seq > 1
    assert (hello.cluster_id, hello.job_uid, hello.lease_id) == (CLUSTER_ID, JOB_UID, LEASE_ID)
    assert hello.highest_version == Version(1, 9)
    assert hello.observed == observed(9, AgentPhase.SUCCEEDED)
    assert sum(isinstance(event, Detached) for event in agent.look()) == 1


def test_a_coordinator_that_was_gone_is_found_without_a_backoff(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    coordinator.stop()
    agent = attach(coordinator.endpoint, first_backoff_ms=60_000, longest_backoff_ms=60_000, first_knock_ms=10)
    for _ in range(3):
        agent.next(ConnectionsRefused)
    coordinator.start()
    coordinator.accept()


def test_an_ordinary_end_of_the_stream_is_a_break(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    agent.next(Attached)
    stream.end()
    agent.next(Detached)
    assert coordinator.accept().hello.hello.lease_id == LEASE_ID
    assert not any(isinstance(event, ConnectionsRefused) for event in agent.look())


@pytest.mark.parametrize("name", ["CANCELLED", "INTERNAL", "UNAVAILABLE", "UNIMPLEMENTED", "NOT_FOUND", "UNKNOWN"])
def test_any_status_that_is_not_ours_is_a_break(
    name: str, coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    agent = attach(coordinator.endpoint)
    coordinator.accept().fail(grpc.StatusCode[name])
    stream = coordinator.accept()
    assert agent.look() == []
    stream.welcome()
    agent.next(Attached)
    stream.fail(grpc.StatusCode[name])
    agent.next(Detached)
    coordinator.accept()


def test_reattaches_at_once_with_the_identity_it_was_given(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    agent = attach(coordinator.endpoint, first_backoff_ms=60_000, longest_backoff_ms=60_000)
    coordinator.accept().welcome()
    agent.next(Attached)
    agent.link.set_identity(CLUSTER_ID, JOB_UID, 0)
    agent.link.reattach()
    agent.next(Detached)
    hello = hello_from_proto(coordinator.accept().hello.hello)
    assert (hello.attach_seq, hello.cluster_id, hello.job_uid, hello.lease_id) == (2, CLUSTER_ID, JOB_UID, 0)


def test_reattaches_out_of_a_backoff(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint, first_backoff_ms=60_000, longest_backoff_ms=60_000)
    coordinator.accept().refuse(BUSY)
    agent.next(AttachRefused)
    agent.link.reattach()
    coordinator.accept()


def test_a_stale_lease_waits_for_the_workers(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    stream.send(LeaseStale("counted as gone"))
    stream.end()
    assert agent.next(LeaseStaleReceived).message == "counted as gone"
    assert coordinator.accept_within(QUIET_S) is None
    agent.link.set_identity(CLUSTER_ID, JOB_UID, 0)
    agent.link.reattach()
    assert coordinator.accept().hello.hello.lease_id == 0
    kinds = [type(event) for event in agent.look()]
    assert kinds == [Attached, DirectiveReceived, LeaseStaleReceived, Detached]


# --- Refusals


def test_a_final_refusal_ends_the_trying(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    coordinator.accept().refuse(MISMATCH)
    assert agent.next(AttachRefused).refusal == MISMATCH
    assert coordinator.accept_within(QUIET_S) is None
    agent.link.reattach()
    coordinator.accept()


async def test_a_refusal_is_heard_when_the_hello_comes_too_late() -> None:
    """In gRPC's own thread the status is there before the Hello is written; the event loop hears of both at once."""

    def late_hello() -> Hello:
        assert door.refused.acquire(timeout=WAIT_S)
        time.sleep(0.002)  # on its way to us; too short would mean an easier test, not one that fails
        return hello()

    with contextlib.closing(ShutDoor()) as door, contextlib.closing(Mailbox()) as mailbox:
        async with grpc.aio.insecure_channel(target(door.endpoint)) as channel:
            for _ in range(100):
                stream = Stream(AgentServiceStub(channel).Attach(), late_hello, Wishes(), mailbox)
                end = await stream.run(WAIT_S)
                assert isinstance(end, Refused), end
                assert end.refusal.reason is MISMATCH.reason


def test_any_other_refusal_is_tried_again(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    began_ms = boot_ms()
    agent = attach(coordinator.endpoint)
    coordinator.accept().refuse(BUSY)
    refused = agent.next(AttachRefused)
    assert refused.refusal == BUSY
    assert refused.hello_sent_ms is not None
    assert began_ms <= refused.hello_sent_ms <= boot_ms()
    assert coordinator.accept().hello.hello.attach_seq == 2


def test_a_refusal_that_says_when_to_come_back_is_heeded(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    attach(coordinator.endpoint, first_backoff_ms=5, longest_backoff_ms=5_000)
    first = coordinator.accept()
    refused_ms = boot_ms()
    first.refuse(replace(BUSY, retry_after_ms=400))
    coordinator.accept()
    assert boot_ms() - refused_ms >= 400


def test_a_refusal_of_a_stream_that_stood_detaches_first(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    stream.refuse(Refusal(reason=Reason.SHUTTING_DOWN, message="bye"))
    assert agent.next(AttachRefused).hello_sent_ms is None
    coordinator.accept()
    assert [type(event) for event in agent.look()] == [Attached, DirectiveReceived, Detached, AttachRefused]


# --- Is nobody there?


def test_a_refused_connect_is_reported_again_and_again(attach: Callable[..., Agent], refusing: Endpoint) -> None:
    agent = attach(refusing, refusing)
    first = agent.next(ConnectionsRefused)
    assert agent.next(ConnectionsRefused).probe_sent_ms > first.probe_sent_ms


def test_an_endpoint_that_is_silent_is_not_refused(attach: Callable[..., Agent], refusing: Endpoint) -> None:
    with silent_listener() as listener:
        agent = attach(refusing, endpoint_of(listener), welcome_timeout_ms=50)
        # One by the probe after the closed endpoint, one by the stream, one by the probe after that.
        for _ in range(3):
            listener.accept()[0].close()
        assert agent.look() == []


def test_behind_a_proxy_a_refusal_says_nothing(
    coordinator: FakeCoordinator, attach: Callable[..., Agent], refusing: Endpoint
) -> None:
    agent = attach(refusing, coordinator.endpoint, use_proxy=True)
    coordinator.accept()
    assert agent.look() == []
