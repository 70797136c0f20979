"""Held jobs: what goes on, what does not, and how it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import AgentPhase, JobSpec, JobState, ScaleUp
from rallypoint_coordinator.core import holding
from rallypoint_coordinator.core.events import Request, TimeAdvanced
from rallypoint_coordinator.core.records import JobHeld, JobReleased
from support.coordinator_script import Agent, Script, kinds

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=3, join_timeout_ms=60_000, last_call_timeout_ms=0)
HOUR_MS = 3_600_000


@pytest.fixture
def script() -> Script:
    return Script()


def beat(script: Script, agents: list[Agent], for_ms: int) -> None:
    for _ in range(0, for_ms, PAIR.heartbeat_interval_ms):
        script.advance(PAIR.heartbeat_interval_ms)
        for agent in agents:
            agent.heartbeat()


def holds(script: Script) -> list[JobHeld | JobReleased]:
    return [entry.record for entry in script.journal if isinstance(entry.record, JobHeld | JobReleased)]


class TestGathering:
    def test_no_round_is_formed_and_it_says_why(self, script: Script) -> None:
        (a,) = script.attached("a", PAIR)
        assert script.hold() is True
        (b,) = script.attached("b", PAIR)
        assert script.life.facts.state is JobState.GATHERING
        assert (script.life.watch.reason, script.message) == (
            "HELD",
            "held by ops: maintenance: 2 nodes ready",
        )
        assert (a.told, b.told) == ("Hold HELD", "Hold HELD")

    def test_released_it_is_formed_at_once(self, script: Script) -> None:
        script.attached("a", PAIR)
        script.hold()
        agents = script.attached("b", PAIR)
        assert script.ask(Request.RELEASE) is True
        assert script.life.facts.state is JobState.RUNNING
        assert agents[0].told.startswith("Run")

    def test_the_join_timeout_does_not_run_and_is_whole_afterwards(self, script: Script) -> None:
        agents = script.attached("a", PAIR)
        beat(script, agents, 50_000)
        script.hold()
        beat(script, agents, 200_000)
        script.ask(Request.RELEASE)
        beat(script, agents, 55_000)
        assert script.life.facts.state is JobState.GATHERING
        beat(script, agents, 10_000)
        assert script.life.facts.outcome is not None
        assert script.life.facts.outcome.reason == "JOIN_TIMEOUT"

    def test_it_can_be_cancelled(self, script: Script) -> None:
        script.attached("a", PAIR)
        script.hold()
        script.ask(Request.CANCEL)
        assert script.life.facts.state is JobState.CANCELLED
        assert script.life.facts.hold is None


class TestRunning:
    def test_what_runs_goes_on(self, script: Script) -> None:
        agents = script.running("ab", PAIR)
        script.hold()
        assert [agent.told for agent in agents] == ["Run ROUND_FORMED"] * 2

    def test_after_a_failure_it_waits(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        script.hold()
        b.fail()
        assert kinds(a.clear()) == ["RoundEnded"]
        assert script.life.facts.restart_count == 1
        assert script.life.watch.reason == "HELD"
        script.ask(Request.RELEASE)
        assert script.life.facts.round_number == 1

    def test_a_restart_that_is_asked_for_waits_for_the_release(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        script.hold()
        assert script.ask(Request.RESTART) is True
        a.clear()
        b.clear()
        assert script.life.watch.reason == "HELD"

    @pytest.mark.parametrize("scale_up", [ScaleUp.IMMEDIATE, ScaleUp.AFTER])
    def test_a_newcomer_stands_by_until_the_release(self, script: Script, scale_up: ScaleUp) -> None:
        spec = replace(PAIR, max_nodes=3, scale_up=scale_up)
        a, b = script.running("ab", spec)
        script.hold()
        (c,) = script.attached("c", spec)
        assert (a.told, c.told) == ("Run ROUND_FORMED", "Hold STANDBY")
        script.ask(Request.RELEASE)
        script.feed(TimeAdvanced())
        assert script.life.facts.state is JobState.STOPPING
        assert (a.told, b.told) == ("Stop NODE_JOINED", "Stop NODE_JOINED")

    def test_it_may_succeed(self, script: Script) -> None:
        agents = script.running("ab", PAIR)
        script.hold()
        for agent in agents:
            agent.report(AgentPhase.SUCCEEDED)
        assert script.life.facts.state is JobState.SUCCEEDED
        assert script.life.facts.hold is None


class TestEnd:
    def test_it_releases_itself_and_that_is_recorded(self, script: Script) -> None:
        agents = script.attached("a", PAIR)
        script.hold(100_000)
        beat(script, agents, 95_000)
        assert script.life.facts.hold is not None
        beat(script, agents, 5_000)
        assert holds(script)[-1] == JobReleased(by="", reason="the hold has run out")
        assert script.life.facts.hold is None

    def test_also_while_a_round_runs(self, script: Script) -> None:
        agents = script.running("ab", PAIR)
        script.hold(100_000)
        beat(script, agents, 105_000)
        assert script.life.facts.hold is None

    def test_a_longer_one_takes_over_and_a_shorter_one_does_not(self, script: Script) -> None:
        agents = script.attached("a", PAIR)
        assert script.hold(HOUR_MS) is True
        beat(script, agents, 5_000)
        assert script.hold(HOUR_MS // 2) is False
        assert script.hold(HOUR_MS) is True
        first, second = holds(script)
        assert isinstance(first, JobHeld)
        assert isinstance(second, JobHeld)
        assert second.since_wall_ms == first.since_wall_ms
        assert second.until_wall_ms == first.until_wall_ms + 60_000

    @pytest.mark.parametrize(("reason", "kept"), [("", "a new switch"), ("and new disks", "and new disks")])
    def test_who_makes_it_longer_need_not_say_why_again(self, script: Script, reason: str, kept: str) -> None:
        script.attached("a", PAIR)
        script.hold(HOUR_MS, reason="a new switch")
        script.hold(3 * HOUR_MS, reason=reason)
        assert script.life.facts.hold is not None
        assert script.life.facts.hold.reason == kept

    @pytest.mark.parametrize(
        ("hold_ms", "every_ms", "records"),
        [(600_000, 1_000, 3), (600_000, 60_000, 3), (10_000, 100, 121), (200, 100, 121), (24 * HOUR_MS, 1_000, 3)],
    )
    def test_whoever_repeats_it_is_heard_and_makes_few_records(
        self, script: Script, hold_ms: int, every_ms: int, records: int
    ) -> None:
        script.attached("a", replace(PAIR, lease_ttl_ms=HOUR_MS))
        script.hold(hold_ms)
        for _ in range(0, 120_000, every_ms):
            script.now_ms += every_ms
            script.hold(hold_ms)
            ends_ms = script.life.watch.hold_ends_ms
            assert ends_ms is not None
            assert 0 <= ends_ms - script.now_ms - hold_ms < holding.step_ms(hold_ms)
        assert len(holds(script)) == records

    def test_nothing_is_released_twice(self, script: Script) -> None:
        script.attached("a", PAIR)
        assert script.ask(Request.RELEASE) is False
        script.hold()
        assert script.ask(Request.RELEASE) is True
        assert script.ask(Request.RELEASE) is False

    @pytest.mark.parametrize("request_", [Request.HOLD, Request.RELEASE])
    def test_what_is_decided_is_not_held(self, script: Script, request_: Request) -> None:
        script.attached("a", PAIR)
        script.ask(Request.CANCEL)
        answer = script.ask(request_)
        assert isinstance(answer, Refusal)
        assert answer.reason is Reason.JOB_DECIDED


class TestRestartOfTheCoordinator:
    def test_it_goes_on_for_what_is_left(self, script: Script) -> None:
        agents = script.attached("a", PAIR)
        script.hold(100_000)
        beat(script, agents, 60_000)
        script.restart()
        agents[0].attach()
        beat(script, agents, 35_000)
        assert script.life.facts.hold is not None
        beat(script, agents, 10_000)
        assert script.life.facts.hold is None

    def test_what_ran_out_meanwhile_is_released_at_once(self, script: Script) -> None:
        script.attached("a", PAIR)
        script.hold(5_000)
        script.now_ms += 10_000
        script.restart()
        assert holds(script)[-1] == JobReleased(by="", reason="the hold has run out")

    def test_a_wall_clock_that_went_back_holds_it_no_longer_than_it_was_to_be(self, script: Script) -> None:
        script.attached("a", PAIR)
        script.hold(5_000)
        held = script.life.facts.hold
        assert held is not None
        early = replace(held, since_wall_ms=held.since_wall_ms + HOUR_MS, until_wall_ms=held.until_wall_ms + HOUR_MS)
        script.journal[-1] = replace(script.journal[-1], record=early)
        script.restart()
        assert script.life.watch.hold_ends_ms == script.now_ms + 5_000

    def test_a_hold_that_is_made_longer_after_the_wall_clock_went_back_outlives_a_restart(self, script: Script) -> None:
        script.attached("a", PAIR)
        script.hold(5_000)
        held = script.life.facts.hold
        assert held is not None
        early = replace(held, since_wall_ms=held.since_wall_ms + HOUR_MS, until_wall_ms=held.until_wall_ms + HOUR_MS)
        script.journal[-1] = replace(script.journal[-1], record=early)
        script.restart()
        assert script.hold(20_000) is True
        ends_ms = script.life.watch.hold_ends_ms
        assert ends_ms is not None
        assert ends_ms >= script.now_ms + 20_000
        script.restart()
        assert script.life.watch.hold_ends_ms == ends_ms
