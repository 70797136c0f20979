"""The parts of the link that need no coordinator."""

from __future__ import annotations

import random
import select
import socket
from collections.abc import Iterator

import pytest

from rallypoint.model import AgentPhase, Directive, Endpoint, Hold, JobSpec, NodeSpec, Observed, Version
from rallypoint_agent.backoff import Backoff
from rallypoint_agent.core.events import (
    ConnectionsRefused,
    Detached,
    DirectiveReceived,
    Event,
    LeaseRenewed,
)
from rallypoint_agent.link import LinkConfig
from rallypoint_agent.link.addresses import local_address_towards, resolve
from rallypoint_agent.link.mailbox import Mailbox
from rallypoint_agent.link.probe import all_refused
from rallypoint_agent.link.sent import SentLog
from rallypoint_agent.link.wishes import Wishes
from support.fake_coordinator import refusing_endpoint

PROBE_S = 0.1


def directive(revision: int) -> DirectiveReceived:
    return DirectiveReceived(
        Directive(version=Version(1, revision), job_uid="u", reason="R", message="", action=Hold())
    )


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox()
    yield box
    box.close()


@pytest.fixture
def closed() -> Iterator[Endpoint]:
    with refusing_endpoint() as endpoint:
        yield endpoint


def is_readable(mailbox: Mailbox) -> bool:
    return bool(select.select([mailbox], [], [], 0)[0])


def test_backoff_doubles_up_to_the_longest_with_jitter_downwards() -> None:
    backoff = Backoff(0.1, 1.0, rng=random.Random(1))
    for most in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert most / 2 <= backoff.next_s() <= most
    backoff.reset()
    assert backoff.next_s() <= 0.1


def test_a_backoff_waits_as_long_as_it_was_asked_to_within_its_bound() -> None:
    asked = {
        told_s: [Backoff(0.1, 5.0, rng=random.Random(seed)).next_s(told_s) for seed in range(50)]
        for told_s in (0, 2, 900)
    }
    assert 0.05 <= min(asked[0]) <= max(asked[0]) <= 0.1
    assert 2.0 <= min(asked[2]) < max(asked[2]) <= 3.0
    assert 5.0 <= min(asked[900]) <= max(asked[900]) <= 7.5


def test_what_a_backoff_is_asked_for_may_have_a_bound_of_its_own() -> None:
    told_s = [Backoff(0.1, 1.0, rng=random.Random(seed), longest_told_s=5.0).next_s(900) for seed in range(50)]
    assert 5.0 <= min(told_s) <= max(told_s) <= 7.5


def test_backoff_may_grow_more_slowly() -> None:
    backoff = Backoff(1.0, 1.2, growth=1.1, rng=random.Random(1))
    for most in (1.0, 1.1, 1.2, 1.2):
        assert most / 2 <= backoff.next_s() <= most


def test_sent_log_gives_the_newest_acknowledged() -> None:
    sent = SentLog()
    assert [sent.number(at_ms) for at_ms in (100, 200, 300)] == [1, 2, 3]
    assert sent.acknowledge(2) == 200
    assert sent.acknowledge(2) is None
    assert sent.acknowledge(1) is None
    assert sent.acknowledge(3) == 300
    assert sent.last_seq == 3


def test_sent_log_forgets_the_oldest() -> None:
    sent = SentLog()
    for at_ms in range(5000):
        sent.number(at_ms)
    assert sent.acknowledge(1) is None
    assert sent.acknowledge(5000) == 4999


def test_mailbox_is_readable_while_something_waits(mailbox: Mailbox) -> None:
    assert not is_readable(mailbox)
    mailbox.put(Detached())
    assert is_readable(mailbox)
    assert mailbox.drain() == [Detached()]
    assert not is_readable(mailbox)
    assert mailbox.drain() == []
    mailbox.wake()
    assert is_readable(mailbox)
    assert mailbox.drain() == []


@pytest.mark.parametrize(
    ("put", "kept"),
    [
        ([LeaseRenewed(1), LeaseRenewed(2)], [LeaseRenewed(2)]),
        ([ConnectionsRefused(1), ConnectionsRefused(2)], [ConnectionsRefused(2)]),
        ([directive(1), directive(2)], [directive(2)]),
        ([directive(2), directive(1)], [directive(2), directive(1)]),
        ([LeaseRenewed(1), Detached(), LeaseRenewed(2)], [LeaseRenewed(1), Detached(), LeaseRenewed(2)]),
    ],
)
def test_mailbox_keeps_the_newest_of_the_same(mailbox: Mailbox, put: list[Event], kept: list[Event]) -> None:
    for event in put:
        mailbox.put(event)
    assert mailbox.drain() == kept


def test_a_pulse_wakes_only_a_link_that_waits_for_one() -> None:
    wishes, calls = Wishes(), []
    wishes.listen(lambda: calls.append(1))
    assert wishes.is_alive(10**9)
    wishes.alive_until(100)
    assert wishes.is_alive(100)
    wishes.alive_until(150)
    assert not calls
    assert not wishes.is_alive(151)
    wishes.alive_until(200)
    assert calls == [1]
    wishes.report(Observed(phase=AgentPhase.RUNNING))
    assert calls == [1, 1]
    wishes.listen(None)
    wishes.reattach()
    assert wishes.wants_reattach
    assert calls == [1, 1]


def test_a_link_needs_an_endpoint() -> None:
    with pytest.raises(ValueError, match="needs an endpoint"):
        LinkConfig(
            endpoints=(),
            job="j",
            node="n",
            incarnation="i",
            job_spec=JobSpec(),
            node_spec=NodeSpec(),
            agent_version="",
            capabilities=frozenset(),
        )


# --- The probe


async def test_closed_ports_refuse(closed: Endpoint) -> None:
    assert await all_refused([closed, closed], PROBE_S)


async def test_a_listener_does_not_refuse(closed: Endpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not await all_refused([closed, Endpoint(*listener.getsockname())], PROBE_S)


async def test_no_route_is_no_refusal(closed: Endpoint) -> None:
    # 240.0.0.0/4 is routed nowhere: an error at once, or silence.
    assert not await all_refused([closed, Endpoint("240.0.0.1", 1)], PROBE_S)


async def test_no_address_is_no_refusal(closed: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    endpoints = [closed, Endpoint("coordinator.example", 1)]
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert not await all_refused(endpoints, PROBE_S)
    assert not await all_refused(endpoints[1:], PROBE_S)


async def test_every_address_of_a_name_must_refuse(closed: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        addresses = [tuple(closed), listener.getsockname()]
        _resolve_to(addresses, monkeypatch)
        assert not await all_refused([Endpoint("coordinator.example", 1)], PROBE_S)
        _resolve_to(addresses[:1], monkeypatch)
        assert await all_refused([Endpoint("coordinator.example", 1)], PROBE_S)


def _resolve_to(addresses: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: str, port: int, *, type: int, flags: int) -> list[object]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


async def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = socket.socketpair()

    def hang(host: str, port: int, *, type: int, flags: int) -> list[object]:
        if not flags & socket.AI_NUMERICHOST:
            reader.recv(1)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with reader, writer:
        assert not await all_refused([Endpoint("coordinator.example", 1)], PROBE_S)
        writer.send(b"x")


async def test_names_are_looked_up(closed: Endpoint) -> None:
    assert await all_refused([Endpoint("localhost", closed.port)], 5.0)


def test_a_name_that_cannot_be_one_has_no_address() -> None:
    with pytest.raises(OSError, match="not a host name"):
        resolve(Endpoint("a" * 64 + ".example", 1))


def test_local_address_follows_the_route() -> None:
    assert local_address_towards(Endpoint("127.0.0.1", 1)) == "127.0.0.1"


def test_no_route_has_no_local_address(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolve_to([], monkeypatch)
    assert local_address_towards(Endpoint("coordinator.example", 1)) is None
