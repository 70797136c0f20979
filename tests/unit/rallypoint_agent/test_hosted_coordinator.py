"""What is started where; that it is started is a matter of tests/process/test_torchrun_lines.py."""

from __future__ import annotations

import socket
import time

import pytest

from rallypoint.model import Endpoint
from rallypoint_agent import hosted_coordinator
from rallypoint_agent.coordinator_process import CoordinatorStartError
from rallypoint_agent.hosted_coordinator import Started, ensure_coordinator, hosts, listen_address
from rallypoint_agent.meeting import Hosting
from rallypoint_agent.who_answers import Answer

WILDCARD = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "hosting", "is_hosted"),
    [
        ("localhost", Hosting.IF_NAMED, True),
        ("localhost", Hosting.NEVER, False),
        ("192.0.2.7", Hosting.IF_NAMED, False),
        ("192.0.2.7", Hosting.HERE, True),
    ],
)
def test_who_hosts(host: str, hosting: Hosting, is_hosted: bool) -> None:
    assert hosts(Endpoint(host, 29400), hosting) is is_hosted


@pytest.mark.parametrize(
    ("host", "listens"),
    [
        ("localhost", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "::1"),
        ("head", WILDCARD),
        ("10.0.0.1", WILDCARD),
    ],
)
def test_other_machines_reach_it_if_the_address_is_for_them(host: str, listens: str) -> None:
    assert listen_address(Endpoint(host, 29401)) == Endpoint(listens, 29401)


class Host:
    """A machine as told: who answers, one after another, and whether a start succeeds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: list[Answer], starts: list[bool]) -> None:
        self.answers, self.starts = answers, starts
        self.now_s = 0.0
        monkeypatch.setattr(hosted_coordinator, "who_answers", lambda places: self._answer())
        monkeypatch.setattr(hosted_coordinator, "_start", lambda listen, idle: self._start())
        monkeypatch.setattr(time, "sleep", self._sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)

    def _answer(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def _start(self) -> Started:
        if not self.starts.pop(0):
            raise CoordinatorStartError("cannot listen")
        return Started(pid=4711, log="log")

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def ensure(self) -> Started | None:
        return ensure_coordinator(Endpoint("localhost", 29400))


def test_one_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Host(monkeypatch, [Answer.COORDINATOR], []).ensure() is None


def test_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Host(monkeypatch, [Answer.NOBODY], [True]).ensure() == Started(pid=4711, log="log")


def test_who_loses_the_race_takes_the_winners(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Answer.NOBODY, Answer.HANGS_UP, Answer.SILENT, Answer.COORDINATOR]
    assert Host(monkeypatch, answers, [False]).ensure() is None


def test_one_that_ends_meanwhile_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Host(monkeypatch, [Answer.HANGS_UP, Answer.NOBODY], [True]).ensure() is not None


def test_one_that_is_slow_and_then_ends_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer has its own patience: that it was silent for longer says nothing of how it hangs up."""
    answers = [*[Answer.SILENT] * 200, Answer.HANGS_UP, Answer.NOBODY]
    assert Host(monkeypatch, answers, [True]).ensure() is not None


def test_who_changes_between_them_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, [Answer.SILENT, Answer.HANGS_UP] * 1_000, [])
    with pytest.raises(CoordinatorStartError, match="is no coordinator"):
        host.ensure()
    assert 30 <= host.now_s <= 30.1


def test_what_cannot_be_started_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, [Answer.NOBODY], [False, False, False])
    with pytest.raises(CoordinatorStartError, match="no coordinator can be started at localhost:29400: cannot listen"):
        host.ensure()
    assert host.starts == []


@pytest.mark.parametrize(("answer", "patience_s"), [(Answer.STRANGER, 0), (Answer.HANGS_UP, 5), (Answer.SILENT, 30)])
def test_something_else_is_there(monkeypatch: pytest.MonkeyPatch, answer: Answer, patience_s: float) -> None:
    host = Host(monkeypatch, [answer], [])
    with pytest.raises(CoordinatorStartError, match="what listens at localhost:29400 is no coordinator"):
        host.ensure()
    assert patience_s <= host.now_s <= patience_s + 0.1
