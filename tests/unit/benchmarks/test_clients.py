"""What the rendezvous of many clients is held against, and the crowd of processes that it is measured with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scoreboard import clients
from scoreboard.bench import Bench
from scoreboard.clients.crowd import crowd
from scoreboard.figures import AtMost, Faster, Row, WithinFloor
from support.processes import is_alive


def rows(monkeypatch: pytest.MonkeyPatch, folder: Path, quick: bool) -> tuple[dict[str, Row], list[str]]:
    """The rows of made-up measurements, by figure, and which were asked for."""
    asked = []

    def measure(module: str, count: int, second: int) -> dict[str, Any]:
        asked.append(f"{module} {count} {second}")
        each = {"agents": 0.002, "many": 0.001, "c10d": 0.1}[module] * count
        repeats = 1 if module == "c10d" else second
        told = {"compare_and_sets": count**2, "sent_bytes": 1_000_000 * count, "gave_up": False}
        cost = {"first_cpu": [each / 2] * repeats, "again_cpu": [each] * repeats}
        return {"first": [each] * repeats, "again": [2 * each] * repeats, **told, **cost}

    monkeypatch.setattr(clients, "_measure", measure)
    return {row.figure: row for row in clients.rows(Bench(quick, folder, "mark"))}, asked


def test_what_each_number_of_clients_is_held_against(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, _ = rows(monkeypatch, tmp_path, quick=False)
    assert {figure: row.targets for figure, row in found.items()} == {
        "rendezvous of 64 clients, a process each: first round": (Faster(20),),
        "rendezvous of 64 clients, ours in one process: first round": (Faster(20),),
        "rendezvous of 64 clients, a process each: once more": (Faster(20),),
        "rendezvous of 64 clients, ours in one process: once more": (Faster(20),),
        "rendezvous of 4096 clients, in one process: first round": (AtMost(2),),
        "coordinator's CPU time for each of 4096 clients: first round": (WithinFloor(1.5),),
        "rendezvous of 4096 clients, in one process: once more": (AtMost(2),),
        "coordinator's CPU time for each of 4096 clients: once more": (WithinFloor(1.5),),
        "rendezvous of 192 clients, a process each: first round": (Faster(100),),
        "rendezvous of 192 clients, ours in one process: first round": (Faster(100),),
        "rendezvous of 192 clients, a process each: once more": (Faster(100),),
        "rendezvous of 192 clients, ours in one process: once more": (Faster(100),),
    }


def test_both_sides_are_measured_as_often_as_the_rows_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, asked = rows(monkeypatch, tmp_path, quick=False)
    few = [asked.count(each) for each in ("agents 64 1", "many 64 1", "c10d 64 80")]
    assert few == [5, 5, 5]
    some = [asked.count(each) for each in ("agents 192 3", "many 192 3", "c10d 192 80")]
    assert some == [1, 1, 1]
    samples = {figure: (len(row.ours), len(row.peer)) for figure, row in found.items() if row.has_peer}
    assert set(samples.values()) == {(5, 5), (3, 1)}
    once = found["rendezvous of 192 clients, a process each: first round"]
    wrote = "its clients wrote 36,864 compare-and-sets, 192 MB, in both rounds"
    assert once.note == f"torch's was measured 1 time; {wrote}"


def test_a_peer_that_never_gets_there_is_told() -> None:
    told = [{"compare_and_sets": 0, "sent_bytes": 0, "gave_up": gave_up} for gave_up in (True, False, True)]
    note = "torch's was measured 3 times, 2 of them in vain: then the time after which it was given up counts"
    assert clients._of_torch(told) == note


def test_the_cost_for_each_client_is_held_against_that_of_few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, _ = rows(monkeypatch, tmp_path, quick=False)
    row = found["coordinator's CPU time for each of 4096 clients: once more"]
    assert row.ours == pytest.approx([0.001] * 3)
    assert row.floor == pytest.approx([0.001] * 5)


def test_a_quick_run_has_few_clients_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, asked = rows(monkeypatch, tmp_path, quick=True)
    assert {count.split()[1] for count in asked} == {"32"}
    assert {row.targets for row in found.values()} == {(Faster(3),)}


CROWD = """
import os, signal
from scoreboard.clients.crowd import CrowdFailed, CrowdLate, crowd

class Client:
    def __init__(self, number):
        self.number = number
    def act(self, order, *details):
        return {"add": self.add, "fail": self.fail, "hang": signal.pause}[order](*details)
    def add(self, addend):
        return self.number + addend, os.getpid()
    def fail(self):
        raise ValueError("this one cannot")

with crowd(3, Client) as clients:
    told = clients.all_do("add", 10, timeout_s=60)
    assert [number for number, _ in told] == [10, 11, 12], told
    assert all(seconds >= 0 for seconds in clients.time("add", 1, timeout_s=60))
    failures = (("fail", 60, CrowdFailed, "this one cannot"), ("hang", 0.1, CrowdLate, "is still at 'hang'"))
    for order, timeout_s, kind, why in failures:
        try:
            clients.all_do(order, timeout_s=timeout_s)
        except CrowdFailed as error:
            assert type(error) is kind and why in str(error), error
        else:
            raise AssertionError(order)
print(*(pid for _, pid in told))
"""


def test_a_crowd_does_what_it_is_told_and_ends_with_its_context() -> None:
    """In a process of one thread, which this one may not be."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", CROWD], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    pids = [int(pid) for pid in ran.stdout.split()]
    assert len(pids) == 3
    assert not any(map(is_alive, pids))


def test_a_process_of_several_threads_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoreboard.clients.crowd.thread_count", lambda: 2)
    with pytest.raises(RuntimeError, match="this one has 2"), crowd(1, lambda number: pytest.fail("it was forked")):
        pass
