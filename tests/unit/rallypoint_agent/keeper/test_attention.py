"""When a keeper is asked, and when it is given up, with a keeper that the test plays."""

from __future__ import annotations

from typing import cast

import pytest

from rallypoint_agent.keeper import Answered, Attention, Keeper
from rallypoint_agent.keeper.attention import ANSWER_NS, OVERDUE_NS

KILL_NS = 50 * 10**9


class Asked:
    """A keeper that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def ask(self) -> None:
        self.calls.append("ask")

    def kill(self) -> None:
        self.calls.append("kill")


@pytest.fixture
def keeper() -> Asked:
    return Asked()


@pytest.fixture
def attention(keeper: Asked) -> Attention:
    return Attention(cast("Keeper", keeper))


def test_it_is_asked_so_early_that_its_duty_can_be_done_in_time(keeper: Asked, attention: Attention) -> None:
    asked_ns = KILL_NS - ANSWER_NS
    assert attention.look(0, KILL_NS) == asked_ns
    assert attention.look(asked_ns - 1, KILL_NS) == asked_ns
    assert keeper.calls == []
    assert attention.look(asked_ns, KILL_NS) == KILL_NS
    assert attention.look(KILL_NS - 1, KILL_NS) == KILL_NS
    assert keeper.calls == ["ask"]


def test_a_keeper_that_does_not_answer_is_killed_once(
    keeper: Asked, attention: Attention, caplog: pytest.LogCaptureFixture
) -> None:
    for now_ns in range(KILL_NS - ANSWER_NS, KILL_NS + 2 * OVERDUE_NS, ANSWER_NS):
        attention.look(now_ns, KILL_NS)
    assert keeper.calls == ["ask", "kill"]
    assert "does not answer" in caplog.text
    assert attention.stuck == (), "nobody has sent one"


def test_a_keeper_that_answers_is_left_alone_however_long_it_takes(keeper: Asked, attention: Attention) -> None:
    for now_ns in range(KILL_NS, KILL_NS + 2 * OVERDUE_NS, ANSWER_NS):
        attention.look(now_ns, KILL_NS)
        attention.answered(Answered(0, killing=True, pids=(7,)))
        assert attention.stuck == ((7,) if now_ns > KILL_NS + OVERDUE_NS else ())
    assert set(keeper.calls) == {"ask"}


def test_what_is_not_killed_yet_is_not_stuck(attention: Attention) -> None:
    for now_ns in range(KILL_NS, KILL_NS + 2 * OVERDUE_NS, ANSWER_NS):
        attention.look(now_ns, KILL_NS)
        attention.answered(Answered(0, killing=False))
    assert attention.stuck == ()


def test_a_stop_that_is_moved_forward_is_attended_to_at_once(keeper: Asked, attention: Attention) -> None:
    assert attention.look(0, KILL_NS) > 0
    assert attention.look(0, 0) == ANSWER_NS
    assert attention.look(ANSWER_NS, 0) > ANSWER_NS
    assert keeper.calls == ["ask", "kill"]
