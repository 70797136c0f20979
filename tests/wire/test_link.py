"""The link against a scripted coordinator: real gRPC, real sockets, a real thread."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import grpc
import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import AgentPhase, Capability, Directive, Endpoint, JobSpec, NodeSpec, Version, WatchdogStatus
from rallypoint.wire import hello_from_proto, observed_from_proto
from rallypoint_agent.core.events import (
    Attached,
    AttachRefused,
    ConnectionsRefused,
    Detached,
    DirectiveReceived,
    LeaseRenewed,
)
from rallypoint_agent.link import Link
from rallypoint_agent.link.clock import boot_ms
from support.fake_coordinator import (
    JOB_UID,
    LEASE_ID,
    QUIET_S,
    WAIT_S,
    FakeCoordinator,
    FakeStream,
    refusing_endpoint,
)
from support.link_agent import (
    Agent,
    attaching,
    directive,
    endpoint_of,
    link_config,
    observed,
    silent_listener,
)
from support.processes import wait_until

OFTEN_MS = 20


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


# --- Attaching


def test_attaches_with_a_hello_and_gives_the_welcome(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    before_ms = boot_ms()
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    after_ms = boot_ms()
    assert (stream.hello.seq, stream.hello.lease_id) == (1, 0)
    hello = hello_from_proto(stream.hello.hello)
    assert (hello.job, hello.node, hello.incarnation) == ("job-1", "node-a", "incarnation-1")
    assert (hello.attach_seq, hello.lease_id, hello.cluster_id, hello.job_uid) == (1, 0, "", "")
    assert hello.job_spec == JobSpec(min_nodes=1, max_nodes=4)
    assert hello.node_spec == NodeSpec(local_world_size=2, labels={"rack": "r1"})
    assert hello.capabilities == frozenset(Capability)
    assert hello.agent_version == "rallypoint-agent/0"
    welcome = stream.welcome()
    attached = agent.next(Attached)
    assert attached.welcome == welcome
    assert before_ms <= attached.hello_sent_ms <= after_ms


def test_gives_the_directive_of_the_welcome_right_after_it_and_remembers_its_version(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome(directive=directive(5))
    assert agent.next(DirectiveReceived).directive == directive(5)
    assert [type(event) for event in agent.seen] == [Attached, DirectiveReceived]
    stream.end()
    assert hello_from_proto(coordinator.accept().hello.hello).highest_version == directive(5).version


def test_gives_directives_with_a_kind_it_does_not_know_too(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    welcome = stream.welcome()
    assert agent.next(DirectiveReceived).directive == welcome.directive
    stream.send(directive(3))
    assert agent.next(DirectiveReceived).directive == directive(3)
    unknown = Directive(version=Version(1, 4), job_uid=JOB_UID, reason="NEW", message="?", action=None)
    stream.send(unknown)
    assert agent.next(DirectiveReceived).directive == unknown


def test_goes_on_to_the_next_endpoint(
    coordinator: FakeCoordinator, attach: Callable[..., Agent], refusing: Endpoint
) -> None:
    attach(refusing, coordinator.endpoint)
    coordinator.accept()


def test_goes_on_when_a_coordinator_never_says_welcome(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    attach(coordinator.endpoint, welcome_timeout_ms=50)
    first = coordinator.accept().hello.hello.attach_seq
    assert coordinator.accept().hello.hello.attach_seq > first


def test_is_more_patient_with_a_coordinator_that_has_its_hello(
    coordinator: FakeCoordinator, attach: Callable[..., Agent], caplog: pytest.LogCaptureFixture
) -> None:
    """Else one that needs longer for all who come at once is slowed down by those who gave up and come again."""
    agent = attach(coordinator.endpoint, welcome_timeout_ms=50, longest_welcome_timeout_ms=150)
    for timeout_s in (0.1, 0.2, 0.3):
        coordinator.accept()
        wait_until(partial(_has_said, caplog, f"no Welcome within {timeout_s:g} s"))

    def is_welcomed() -> bool:
        stream = coordinator.accept_within(0)
        if stream is not None:  # It may have lost patience with that one as well.
            stream.welcome()
        return any(isinstance(event, Attached) for event in agent.look())

    wait_until(is_welcomed)


def _has_said(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


def test_is_no_more_patient_with_what_takes_the_connect_alone(
    attach: Callable[..., Agent], caplog: pytest.LogCaptureFixture
) -> None:
    with silent_listener() as listener:
        attach(endpoint_of(listener), welcome_timeout_ms=50)
        # Two streams, a probe after each, and the third stream.
        connections = [listener.accept()[0] for _ in range(5)]
    assert "no Welcome within 0.05 s" in caplog.text
    assert "no Welcome within 0.1 s" not in caplog.text
    for connection in connections:
        connection.close()


def test_starts_over_when_the_coordinator_makes_no_sense(
    coordinator: FakeCoordinator, attach: Callable[..., Agent], caplog: pytest.LogCaptureFixture
) -> None:
    agent = attach(coordinator.endpoint)
    coordinator.accept().send(directive(1))
    stream = coordinator.accept()
    assert "first message is no Welcome" in caplog.text
    stream.welcome()
    agent.next(Attached)
    stream.ack(99)
    agent.next(Detached)
    stream = coordinator.accept()
    assert "acknowledges message 99, but 1 was the last one" in caplog.text
    stream.welcome()
    stream.welcome()
    coordinator.accept()
    assert "a Welcome that answers no Hello" in caplog.text


def test_a_fault_of_our_own_is_logged_and_tried_again(
    coordinator: FakeCoordinator,
    attach: Callable[..., Agent],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    agent.next(Attached)
    with monkeypatch.context() as faulty:
        faulty.setattr("rallypoint_agent.link.stream.attach_request_to_proto", lambda *_, **__: 1 / 0)
        agent.link.report(observed(1))
        agent.next(Detached)
    coordinator.accept()
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text


def test_a_hello_that_cannot_be_encoded_is_final(
    coordinator: FakeCoordinator, attach: Callable[..., Agent], caplog: pytest.LogCaptureFixture
) -> None:
    agent = attach(coordinator.endpoint, node_spec=NodeSpec(node_rank=10**14))
    refusal = agent.next(AttachRefused).refusal
    assert refusal.final
    assert "cannot be said" in refusal.message
    assert "\n" not in refusal.message
    assert coordinator.accept_within(QUIET_S) is None, "it is not tried again"
    assert not [record for record in caplog.records if record.name.startswith("rallypoint_agent")]


def test_a_spec_that_differs_is_told_in_flags(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    metadata = {"field": "lease_ttl_ms", "job": "30000", "agent": "60000"}
    coordinator.accept().refuse(Refusal(reason=Reason.SPEC_MISMATCH, message="?", metadata=metadata))
    told = agent.next(AttachRefused).refusal.message
    assert told == "--lease-ttl is 30s in the job and 60s here: all agents of a job must agree"


# --- Reports, heartbeats, renewals


def test_an_acknowledgement_renews_from_when_the_message_was_sent(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    before_ms = boot_ms()
    agent.link.report(observed(1))
    request = stream.next()
    after_ms = boot_ms()
    assert (request.seq, request.lease_id) == (2, LEASE_ID)
    assert observed_from_proto(request.observed) == observed(1)
    stream.ack(2)
    assert before_ms <= agent.next(LeaseRenewed).sent_ms <= after_ms


def test_acknowledgements_are_cumulative(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    agent.link.report(observed(1))
    stream.next()
    between_ms = boot_ms()
    agent.link.report(observed(2))
    stream.next()
    stream.ack(3)
    assert agent.next(LeaseRenewed).sent_ms >= between_ms
    stream.ack(2)
    stream.send(directive(1))
    agent.next(DirectiveReceived)
    assert sum(isinstance(event, LeaseRenewed) for event in agent.seen) == 1


def test_heartbeats_carry_lease_number_and_version(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    agent.link.report(observed(5))
    stream = coordinator.accept()
    stream.welcome(heartbeat_interval_ms=OFTEN_MS)
    beats = [stream.next_of("heartbeat") for _ in range(3)]
    assert [beat.lease_id for beat in beats] == [LEASE_ID] * 3
    assert [beat.seq - beats[0].seq for beat in beats] == [0, 1, 2]
    assert beats[-1].heartbeat.version.revision == 5
    agent.link.report(observed(6))
    stream.next_of("observed")
    assert stream.next_of("heartbeat").heartbeat.version.revision == 6


def test_only_the_newest_report_is_sent(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    for revision in range(1, 6):
        agent.link.report(observed(revision))
    stream.welcome()
    first = stream.next()
    assert observed_from_proto(first.observed) == observed(5)
    assert first.seq == 2
    agent.link.report(observed(5))
    assert stream.next_within(QUIET_S) is None


def test_what_can_wait_takes_the_place_of_a_heartbeat(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome(heartbeat_interval_ms=OFTEN_MS)
    stream.next_of("heartbeat")
    agent.link.watchdog(WatchdogStatus(enabled=True))
    agent.link.report(observed(6), can_wait=True)
    said = stream.next_of("observed")
    assert (said.observed.version.revision, said.observed.watchdog.enabled) == (6, True)
    beat = stream.next()
    assert (beat.seq, beat.heartbeat.version.revision) == (said.seq + 1, 6)


def test_what_can_wait_goes_with_what_cannot(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    agent.link.report(observed(1), can_wait=True)
    assert stream.next_within(QUIET_S) is None
    agent.link.report(observed(2))
    assert stream.next().observed.version.revision == 2


def test_what_cannot_wait_does_not_when_what_can_replaces_it(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    agent.link.report(observed(1))
    agent.link.report(observed(2), can_wait=True)
    stream.welcome()
    assert stream.next().observed.version.revision == 2


def test_a_hello_says_what_could_wait(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    agent.next(Attached)
    agent.link.report(observed(1), can_wait=True)
    agent.link.reattach()
    stream = coordinator.accept()
    assert observed_from_proto(stream.hello.hello.observed) == observed(1)
    stream.welcome()
    assert stream.next_within(QUIET_S) is None


def test_a_goodbye_takes_the_place_of_what_could_wait(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    agent.next(Attached)
    agent.link.report(observed(1), can_wait=True)
    agent.link.leave("SIGNAL", "why")
    assert stream.next().goodbye.reason == "SIGNAL"


# --- The pulse


def test_a_main_thread_that_hangs_renews_nothing(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome(heartbeat_interval_ms=OFTEN_MS)
    stream.next_of("heartbeat")
    agent.link.alive_until(boot_ms() - 1)
    stream.wait_for_silence()
    agent.link.report(observed(1))
    assert stream.next_within(QUIET_S) is None
    agent.link.alive_until(boot_ms() + 60_000)
    stream.next_of("observed")
    stream.next_of("heartbeat")


def test_a_main_thread_that_hangs_attaches_not(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    agent.next(Attached)
    agent.link.alive_until(boot_ms() - 1)
    stream.end()
    agent.next(Detached)
    assert coordinator.accept_within(QUIET_S) is None
    agent.link.alive_until(boot_ms() + 60_000)
    coordinator.accept()


def test_a_main_thread_that_hangs_during_the_connect_says_no_hello(attach: Callable[..., Agent]) -> None:
    with silent_listener() as listener:
        agent = attach(endpoint_of(listener))
        connection = listener.accept()[0]
        with connection:
            agent.link.alive_until(boot_ms() - 1)
            connection.sendall(HTTP2_EMPTY_SETTINGS)
            frames = http2_frames(connection)
            skip_to(HTTP2_HEADERS, frames)
            connection.settimeout(QUIET_S)
            with pytest.raises(TimeoutError):
                skip_to(HTTP2_DATA, frames)
            agent.link.alive_until(boot_ms() + 60_000)
            connection.settimeout(WAIT_S)
            skip_to(HTTP2_DATA, http2_frames(connection, preface=False))


HTTP2_DATA, HTTP2_HEADERS = 0, 1
HTTP2_EMPTY_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def skip_to(kind: int, frames: Iterator[int]) -> None:
    assert kind in frames


def http2_frames(connection: socket.socket, *, preface: bool = True) -> Iterator[int]:
    """The kinds of the frames that come in."""
    if preface:
        assert receive(connection, len(HTTP2_PREFACE)) == HTTP2_PREFACE
    while True:
        head = receive(connection, 9)
        receive(connection, int.from_bytes(head[:3]))
        yield head[3]


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        assert chunk
        data += chunk
    return data


# --- The end


def leave(agent: Agent, stream: FakeStream) -> int:
    """Report and leave; the number of the Goodbye."""
    agent.link.report(observed(3, AgentPhase.SUCCEEDED))
    agent.link.leave("JOB_DECIDED", "all succeeded")
    assert observed_from_proto(stream.next_of("observed").observed).phase is AgentPhase.SUCCEEDED
    request = stream.next()
    assert (request.goodbye.reason, request.goodbye.message) == ("JOB_DECIDED", "all succeeded")
    assert request.lease_id == LEASE_ID
    return request.seq


def test_leaves_when_the_goodbye_is_acknowledged(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    agent.next(Attached)
    seq = leave(agent, stream)
    stream.ack(seq - 1)
    agent.next(LeaseRenewed)
    assert not agent.link.left
    stream.ack(seq)
    agent.wait_until_left()
    assert coordinator.accept_within(QUIET_S) is None


def test_leaves_when_the_stream_ends_instead(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    leave(agent, stream)
    stream.end()
    agent.wait_until_left()
    assert coordinator.accept_within(QUIET_S) is None


def test_says_goodbye_to_a_welcome_that_is_under_way(
    coordinator: FakeCoordinator, attach: Callable[..., Agent]
) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    agent.link.leave("SIGNAL", "SIGTERM")
    stream.welcome()
    stream.ack(stream.next_of("goodbye").seq)
    agent.wait_until_left()
    assert agent.link.released


def test_leaves_at_once_without_a_stream(attach: Callable[..., Agent], refusing: Endpoint) -> None:
    agent = attach(refusing, first_backoff_ms=60_000, longest_backoff_ms=60_000)
    agent.link.leave("SIGNAL", "SIGTERM")
    agent.wait_until_left()
    assert not agent.link.released


def test_close_ends_the_thread_and_the_stream(coordinator: FakeCoordinator, attach: Callable[..., Agent]) -> None:
    agent = attach(coordinator.endpoint)
    stream = coordinator.accept()
    stream.welcome()
    agent.next(Attached)
    agent.link.close()
    agent.link.close()
    assert "rallypoint-link" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(AssertionError, match="has ended"):
        stream.next()


def test_a_link_that_cannot_run_says_so(
    coordinator: FakeCoordinator,
    attach: Callable[..., Agent],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "rallypoint_agent.link.attacher", None)
    agent = attach(coordinator.endpoint)
    refusal = agent.next(AttachRefused).refusal
    assert refusal.final
    assert "attacher" in refusal.message
    assert "the link failed" in caplog.text


def test_the_reason_for_no_stream_is_logged_once(
    attach: Callable[..., Agent], coordinator: FakeCoordinator, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        attach(coordinator.endpoint)
        for _ in range(3):
            coordinator.accept().fail(grpc.StatusCode.UNIMPLEMENTED)
        coordinator.accept()
    assert caplog.text.count("not attached to the coordinator") == 1


def test_that_nobody_is_there_is_for_the_agent_to_say(
    attach: Callable[..., Agent], refusing: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        agent = attach(refusing)
        for _ in range(3):
            agent.next(ConnectionsRefused)
    assert caplog.messages == []


def test_local_address_needs_no_coordinator(refusing: Endpoint) -> None:
    link = Link(link_config(refusing))
    assert link.local_address() == "127.0.0.1"
    link.close()
