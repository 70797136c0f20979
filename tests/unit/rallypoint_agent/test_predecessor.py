"""What an agent leaves to its successor: the record, and who is killed by it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint_agent import predecessor
from rallypoint_agent.keeper import process_tree
from rallypoint_agent.obituary import Obituary
from rallypoint_agent.predecessor import LeftoversError, clear_predecessor, parse_record, record_of
from rallypoint_agent.worker_env import INCARNATION_VARIABLE
from support.processes import is_alive, wait_until

OBITUARY = Obituary((("127.0.0.1", 1),), "job", "uid", 7, "i", "m", 1000)


@pytest.fixture
def incarnation() -> str:
    return os.urandom(16).hex()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Obituary]:
    told: list[Obituary] = []
    monkeypatch.setattr(predecessor, "_tell", told.append)
    return told


class Family:
    """A process with the mark; its child without it."""

    def __init__(self, incarnation: str) -> None:
        env = {**os.environ, INCARNATION_VARIABLE: incarnation}
        script = "env -i sleep 600 & echo $!; exec sleep 600"
        self.popen = subprocess.Popen(["sh", "-c", script], env=env, stdout=subprocess.PIPE, start_new_session=True)
        assert self.popen.stdout
        with self.popen.stdout as stdout:
            self.child = int(stdout.readline())
        wait_until(lambda: b"sleep" in Path(f"/proc/{self.child}/cmdline").read_bytes())

    @property
    def alive(self) -> list[bool]:
        return [self.popen.poll() is None, is_alive(self.child)]

    def close(self) -> None:
        if is_alive(self.child):
            os.kill(self.child, 9)
        self.popen.kill()
        self.popen.wait()


@pytest.fixture
def family(incarnation: str) -> Iterator[Family]:
    family = Family(incarnation)
    yield family
    family.close()


@pytest.fixture
def not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process started counts as an earlier agent's."""
    line = {os.getpid(), os.getppid()}
    monkeypatch.setattr(process_tree, "_own_line", lambda: line)


@pytest.mark.usefixtures("not_ours")
def test_what_is_marked_and_what_descends_from_it_is_ended(
    incarnation: str, family: Family, told: list[Obituary]
) -> None:
    other = Family(os.urandom(16).hex())
    try:
        clear_predecessor(record_of(incarnation, OBITUARY))
        assert family.alive == [False, False]
        assert other.alive == [True, True]
    finally:
        other.close()
    assert json.dumps(told) == json.dumps([OBITUARY])


def test_what_descends_from_us_is_spared(incarnation: str, family: Family, told: list[Obituary]) -> None:
    clear_predecessor(record_of(incarnation, OBITUARY))
    assert family.alive == [True, True]
    assert json.dumps(told) == json.dumps([OBITUARY])


@pytest.mark.usefixtures("not_ours")
@pytest.mark.parametrize("field", [0, 1], ids=["another boot", "another pid namespace"])
def test_another_systems_processes_are_none_of_ours(
    incarnation: str, family: Family, told: list[Obituary], field: int
) -> None:
    record = json.loads(record_of(incarnation, OBITUARY))
    record[field] += "0"
    clear_predecessor(json.dumps(record))
    assert family.alive == [True, True]
    assert told == []


@pytest.mark.usefixtures("not_ours")
def test_what_outlasts_the_parent_that_led_to_it_is_left(
    incarnation: str, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_the_parent_alone(handle: process_tree._Handle) -> None:
        if handle._pid == family.popen.pid:
            family.popen.kill()
            family.popen.wait()

    monkeypatch.setattr(process_tree._Handle, "kill", end_the_parent_alone)
    with pytest.raises(LeftoversError, match=str(family.child)):
        clear_predecessor(record_of(incarnation, OBITUARY), sweep_s=1)


@pytest.mark.usefixtures("not_ours")
def test_while_something_is_left_nothing_is_told(
    incarnation: str, family: Family, told: list[Obituary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_tree._Handle, "kill", lambda self: None)
    with pytest.raises(LeftoversError, match=str(family.popen.pid)):
        clear_predecessor(record_of(incarnation, OBITUARY), sweep_s=0.05)
    assert told == []


def test_without_a_lease_there_is_nobody_to_tell(incarnation: str, told: list[Obituary]) -> None:
    clear_predecessor(record_of(incarnation))
    clear_predecessor(record_of(incarnation, OBITUARY._replace(lease_id=0)))
    assert told == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", '["b", "p", "", null]', '["b", "p", 7, null]', record_of("0" * 32)[:-9], "[" * 60_000],
)
def test_a_record_that_makes_no_sense_is_none(text: str) -> None:
    assert parse_record(text) is None
    clear_predecessor(text)


def test_a_record_comes_back_as_it_was(incarnation: str) -> None:
    record = parse_record(record_of(incarnation, OBITUARY))
    assert record is not None
    assert record.incarnation == incarnation
    assert record.obituary is not None
    assert json.dumps(record.obituary) == json.dumps(OBITUARY)
