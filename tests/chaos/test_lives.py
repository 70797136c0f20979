"""The checks of the records can fail: one record too wrong for each of them."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from chaos.lives import Life, Lives

NODES = ("a", "b")


def worker(number: int, rank: int) -> Life:
    """One of two nodes with two workers each."""
    return Life(
        kind="worker",
        pid=1000 + 10 * number + rank,
        born_ns=number,
        job_uid="uid",
        round=number,
        restart_count=number,
        node=NODES[rank // 2],
        rank=rank,
        local_rank=rank % 2,
        group_rank=rank // 2,
        world_size=4,
        endpoint=f"a:{number}",
        strangers=[],
    )


def rounds(count: int) -> list[Life]:
    return [worker(number, rank) for number in range(count) for rank in range(4)]


def check(folder: Path, lives: list[Life]) -> list[str]:
    for life in lives:
        (folder / f"life.{life.round}.{life.pid}").write_text(json.dumps(asdict(life)))
    return Lives(folder).check()


def test_what_should_be_is_not_complained_of(tmp_path: Path) -> None:
    assert check(tmp_path, [*rounds(3), worker(3, 1)]) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"strangers": [7]}, r"round 1: when rank 3 began, \[7\] of another round were alive"),
        ({"job_uid": "other"}, "differ in job_uid"),
        ({"restart_count": 7}, "differ in restart_count"),
        ({"world_size": 5}, "differ in world_size"),
        ({"endpoint": "b:1"}, "differ in endpoint"),
        ({"rank": 2}, "a rank began twice"),
        ({"rank": 4}, "in a world of 4"),
        ({"group_rank": 2}, "not one to one"),
        ({"local_rank": 0}, "not contiguous"),
    ],
)
def test_one_worker_that_does_not_fit_is_found(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    odd = replace(worker(1, 3), **change)  # type: ignore[arg-type]
    lives = [life for life in rounds(2) if life.pid != odd.pid]
    found = check(tmp_path, [*lives, odd])
    assert any(re.search(complaint, line) for line in found), found


def test_a_restart_count_that_goes_back_is_found(tmp_path: Path) -> None:
    lives = [replace(life, restart_count=1 - life.round) for life in rounds(2)]
    assert check(tmp_path, lives) == ["the restart count went back from one round to a later one: [1, 0]"]


def test_the_same_nodes_in_another_order_are_found(tmp_path: Path) -> None:
    turned = [replace(life, node=NODES[1 - life.group_rank]) if life.round == 1 else life for life in rounds(2)]
    assert check(tmp_path, turned) == ["round 1: the same nodes as before in another order: ['b', 'a'], not ['a', 'b']"]
