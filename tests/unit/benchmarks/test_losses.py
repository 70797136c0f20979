"""The pure parts of the suite ``losses``: when a round is whole, and when a gloo job is back."""

from __future__ import annotations

from typing import Any

import pytest

from scoreboard.losses.births import Birth, is_whole
from scoreboard.losses.gloo import Attempt


def birth(rank: int, world_size: int) -> Birth:
    return Birth(
        job="job",
        node=f"node-{rank}",
        round=1,
        restart_count=0,
        rank=rank,
        world_size=world_size,
        family=[100 + rank],
        steady_ns=0,
        wall_ns=0,
    )


@pytest.mark.parametrize(
    ("world_sizes", "whole"),
    [((2, 2), True), ((2,), False), ((), False), ((3, 3), False), ((2, 3), False), ((2, 2, 2), False)],
)
def test_a_round_is_whole_with_all_workers_of_the_size_that_is_waited_for(
    world_sizes: tuple[int, ...], whole: bool
) -> None:
    workers = [birth(rank, world_size) for rank, world_size in enumerate(world_sizes)]
    assert is_whole(workers, 2) is whole


def began(node: str) -> dict[str, Any]:
    return {"word": "began", "node": node, "pid": 7, "rank": 0, "restart_count": 0}


def works(rank: int) -> dict[str, Any]:
    return {"word": "works", "node": f"node-{rank}", "pid": 100 + rank, "rank": rank, "restart_count": 0}


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ([], None),
        ([began("a"), began("b")], None),
        ([began("a"), began("b"), works(0)], None),
        ([began("a"), began("b"), works(0), works(1)], True),
        ([began("a"), began("b"), began("a")], False),
        ([began("a"), works(0), works(1), began("a")], False),
    ],
)
def test_a_gloo_job_is_back_after_one_start_of_each_worker(said: list[dict[str, Any]], verdict: bool | None) -> None:
    attempt = Attempt(2)
    for message in said:
        attempt.hear(message)
    assert attempt.verdict is verdict


def test_whose_world_works_is_known_by_rank() -> None:
    attempt = Attempt(2)
    attempt.hear(works(1))
    attempt.hear(works(0))
    assert attempt.working == {0: 100, 1: 101}
