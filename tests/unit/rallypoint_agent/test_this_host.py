from __future__ import annotations

import socket

import pytest

from rallypoint.model import Endpoint
from rallypoint_agent import this_host
from rallypoint_agent.link.addresses import Address
from rallypoint_agent.this_host import is_loopback_name, names_this_host


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "0.0.0.0", socket.gethostname()])
def test_what_is_this_host(host: str) -> None:
    assert names_this_host(host)


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "no-such-host.invalid", ".", "x" * 300])
def test_what_is_another_one(host: str) -> None:
    assert not names_this_host(host)


def resolver(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    found = [Address(socket.AF_INET, (address, 0)) for address in addresses]
    monkeypatch.setattr(this_host, "resolve", lambda endpoint: found if endpoint == Endpoint("head", 0) else [])


def test_a_name_is_this_host_if_one_of_its_addresses_is(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, "192.0.2.7", "127.0.1.1")
    assert names_this_host("head")


def test_a_name_of_other_addresses_is_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, "192.0.2.7", "192.0.2.8")
    assert not names_this_host("head")


def test_the_full_name_need_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch)
    monkeypatch.setattr(socket, "getfqdn", lambda: "Head.cluster.example")
    assert names_this_host("head.cluster.example")
    assert not names_this_host("tail.cluster.example")


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("localhost", True), ("127.0.0.2", True), ("::1", True), ("10.0.0.1", False), (socket.gethostname(), False)],
)
def test_what_no_other_machine_can_reach_by_its_name(host: str, is_loopback: bool) -> None:
    assert is_loopback_name(host) is is_loopback
