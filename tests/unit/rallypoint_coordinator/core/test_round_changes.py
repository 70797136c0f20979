"""How rounds ended and what the way to the next took: :mod:`rallypoint_coordinator.core.round_changes`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import NO_ROUND, AgentPhase, Endpoint, JobSpec, ScaleUp, WorkerState, WorkerStatus
from rallypoint_coordinator.core import round_changes
from rallypoint_coordinator.core.events import Request
from rallypoint_coordinator.core.records import (
    LifeRecord,
    RecoveryBegan,
    RoundEnded,
    RoundFormed,
    RoundStopping,
    StopCause,
)
from rallypoint_coordinator.core.round_changes import (
    KEPT_MAX,
    MESSAGE_BYTES,
    Phases,
    RoundChange,
    RoundChanges,
    Sightings,
    instants_of,
    phases_of,
)
from support.coordinator_script import Agent, Script, failure

SPEC = JobSpec(min_nodes=1, max_nodes=2, max_restarts=3, last_call_timeout_ms=1_000)


@pytest.fixture
def script() -> Script:
    return Script()


def phases(script: Script) -> Phases:
    """Of the newest change."""
    return phases_of(instants_of(script.life.facts.round_changes[-1], script.life.watch.sightings))


def detected(script: Script) -> tuple[StopCause, int | None, int | None]:
    """The newest change's cause, and how long it took to hear of it and to stop the round."""
    found = phases(script)
    return script.life.facts.round_changes[-1].cause, found.detect_ms, found.decide_ms


class TestDetection:
    """From when what ends a round happened until the coordinator could know, by the kind of what happened."""

    @pytest.fixture
    def agents(self, script: Script) -> list[Agent]:
        agents = [script.agent(node, SPEC) for node in "ab"]
        for agent in agents:
            agent.clock_ms, agent.lag_ms = 50_000, 10
            agent.attach()
        for agent in agents:
            agent.run()
        return agents

    def test_a_failure_by_the_corrected_clock_of_its_agent(self, script: Script, agents: list[Agent]) -> None:
        agents[1].fail(exit_code=-9, fail_clock_ms=agents[1].shown(-110))
        assert detected(script) == (StopCause.WORKER_FAILED, 110, 0)

    def test_a_failure_of_an_agent_that_does_not_say_when(self, script: Script, agents: list[Agent]) -> None:
        agents[1].fail(exit_code=-9)
        assert detected(script) == (StopCause.WORKER_FAILED, None, 0)

    def test_a_failure_that_came_first_and_is_heard_of_later(self, script: Script, agents: list[Agent]) -> None:
        a, b = agents
        b.fail(exit_code=-9, fail_clock_ms=b.shown(-30))
        script.now_ms += 100
        a.fail(exit_code=1, traceback="ValueError: x", fail_clock_ms=a.shown(-300))
        assert detected(script) == (StopCause.WORKER_FAILED, 200, 0)

    def test_a_failure_that_followed_from_the_stop_is_no_beginning(self, script: Script, agents: list[Agent]) -> None:
        a, b = agents
        b.fail(exit_code=-9, fail_clock_ms=b.shown(-30))
        late = failure("a", exit_code=-15, after_stop=True, fail_clock_ms=a.shown(-300))
        a.report(AgentPhase.FAILED, late, offer=a.next_offer())
        assert detected(script) == (StopCause.WORKER_FAILED, 30, 0)

    def test_a_lost_node_when_it_was_heard_last(self, script: Script, agents: list[Agent]) -> None:
        script.advance(4_000)
        agents[1].heartbeat()
        for _ in range(7):
            agents[0].heartbeat()
            script.advance(5_000)
        cause, detect_ms, decide_ms = detected(script)
        assert cause is StopCause.NODE_LOST
        assert detect_ms == 31_030
        assert decide_ms == 0

    def test_a_dead_agent_when_its_stream_broke(self, script: Script, agents: list[Agent]) -> None:
        script.advance(4_000)
        agents[1].break_stream()
        script.advance(250)
        agents[1].obituary()
        assert detected(script) == (StopCause.NODE_LOST, 250, 0)

    def test_a_dead_agent_whose_stream_did_not_break(self, script: Script, agents: list[Agent]) -> None:
        script.advance(4_000)
        agents[1].obituary()
        assert detected(script) == (StopCause.NODE_LOST, None, 0)

    def test_who_lost_contact_says_so_too_late_to_know_when(self, script: Script, agents: list[Agent]) -> None:
        agents[1].clear()
        assert detected(script) == (StopCause.NODE_LOST, None, 0)

    @pytest.mark.parametrize("announced", ["STOPPING", "LEFT", "RESTART", "CANCEL", "DRAIN"])
    def test_what_is_announced_takes_no_time(self, script: Script, agents: list[Agent], announced: str) -> None:
        script.advance(3_000)
        if announced == "STOPPING":
            agents[1].report(AgentPhase.STOPPING)
        elif announced == "LEFT":
            agents[1].leave()
        else:
            script.ask(Request(announced), node="b")
        assert detected(script)[1:] == (0, 0)


class TestDecision:
    def test_arrivals_are_gathered_first(self, script: Script) -> None:
        spec = replace(SPEC, scale_up=ScaleUp.AFTER, scale_up_delay_ms=9_000)
        (a,) = script.attached("a", spec)
        script.advance(1_000)
        a.run()
        script.agent("b", spec).attach()
        script.advance(9_000)
        assert detected(script) == (StopCause.NODE_JOINED, 0, 9_000)

    def test_a_start_is_waited_for(self, script: Script) -> None:
        spec = replace(SPEC, min_nodes=2, join_timeout_ms=60_000)
        a, b = script.attached("ab", spec)
        a.run()
        b.report(AgentPhase.RUNNING, workers=(WorkerStatus(local_rank=0, rank=0, state=WorkerState.INIT),))
        for _ in range(12):
            script.advance(5_000)
            a.heartbeat()
            b.heartbeat()
        assert detected(script) == (StopCause.START_TIMEOUT, 60_000, 0)

    def test_an_event_may_wait_for_its_step(self, script: Script) -> None:
        (a,) = script.attached("a", SPEC)
        script.advance(1_000)
        a.run()
        script.waited_ms = 700
        script.ask(Request.RESTART)
        assert detected(script) == (StopCause.RESTART_ASKED, 0, 700)


class TestSpawn:
    def test_it_lasts_until_the_last_has_started(self, script: Script) -> None:
        a, b = script.running("ab", SPEC)
        b.fail()
        a.clear()
        script.advance(100)
        b.run()
        assert phases(script).spawn_ms is None
        script.advance(300)
        a.run()
        assert phases(script).spawn_ms == 400
        script.advance(300)
        a.run()
        assert phases(script).spawn_ms == 400

    def test_a_round_that_ends_before_was_not_spawned(self, script: Script) -> None:
        a, b = script.running("ab", SPEC)
        b.fail()
        a.clear()
        b.run()
        a.fail()
        b.clear()
        first, second = script.life.facts.round_changes
        assert (first.next_round, second.round) == (1, 1)
        assert phases_of(instants_of(first, script.life.watch.sightings)).spawn_ms is None

    @pytest.mark.parametrize("is_durable", [True, False])
    def test_a_coordinator_that_starts_again_knows_what_the_records_tell(
        self, script: Script, is_durable: bool
    ) -> None:
        script.disk_ms = 20 if is_durable else 0
        a, b = script.running("ab", SPEC)
        script.ask(Request.RESTART)
        script.advance(3_000)
        a.clear()
        b.clear()
        script.advance(2_000)
        a.run()
        b.run()
        before = script.life.facts.round_changes
        delay_ms = script.disk_ms
        assert phases(script) == Phases(0, delay_ms, 3_000 - delay_ms, delay_ms, 2_000 - delay_ms)
        script.restart()
        for agent in (a, b):
            agent.attach()
            agent.run()
        assert script.life.facts.round_changes == before
        assert phases(script) == Phases(0, 0, 3_000, 0, None)


STOPPED = RoundStopping(round=0, cause=StopCause.NODE_LEFT, message="b left", happened_wall_ms=100, noticed_wall_ms=100)
ENDED = RoundEnded(round=0, charged=False, culprit=None, message="re-forming: b left")
FORMED = RoundFormed(round=1, seats=(), endpoint=Endpoint("a", 1), offer_id=1)


def led_to(*records: tuple[LifeRecord, int]) -> RoundChanges:
    """What these records, each decided at its time, say together."""
    found: RoundChanges = ()
    for revision, (record, wall_ms) in enumerate(records, start=1):
        found = round_changes.after(found, record, revision=revision, wall_ms=wall_ms)
    return found


class TestRecords:
    def test_a_clock_that_is_set_back_gives_no_negative_time(self) -> None:
        (change,) = led_to((STOPPED, 120), (ENDED, 50), (FORMED, 130))
        assert phases_of(instants_of(change, Sightings())) == Phases(0, 20, 0, 10, None)

    def test_what_an_older_release_wrote_does_not_tell_when_it_was_noticed(self) -> None:
        culprit = failure(corrected_time_ms=90, time_error_ms=1)
        older = replace(STOPPED, happened_wall_ms=0, noticed_wall_ms=0)
        (change,) = led_to((older, 120), (replace(ENDED, culprit=culprit), 150), (FORMED, 160))
        assert phases_of(instants_of(change, Sightings())) == Phases(None, None, 30, 10, None)

    def test_what_a_recovery_came_into_is_dropped(self) -> None:
        assert led_to((STOPPED, 120), (RecoveryBegan(epoch=2), 130)) == ()
        assert led_to((STOPPED, 120), (ENDED, 130), (RecoveryBegan(epoch=2), 140), (FORMED, 150)) == ()
        whole = led_to((STOPPED, 120), (ENDED, 130), (FORMED, 140))
        assert led_to((STOPPED, 120), (ENDED, 130), (FORMED, 140), (RecoveryBegan(epoch=2), 150)) == whole

    def test_an_end_of_which_the_beginning_is_not_known_is_not_told(self) -> None:
        """The snapshot before it was written by an older release."""
        assert led_to((ENDED, 130), (FORMED, 140)) == ()

    def test_a_round_that_decides_the_job_has_no_next(self) -> None:
        (change,) = led_to((STOPPED, 120), (ENDED, 150))
        assert change.next_round == NO_ROUND
        assert phases_of(instants_of(change, Sightings())) == Phases(0, 20, 30, None, None)

    def test_the_newest_are_kept_and_their_messages_are_bounded(self) -> None:
        records: list[tuple[LifeRecord, int]] = []
        for number in range(KEPT_MAX + 3):
            records += [
                (replace(STOPPED, round=number, message="x" * 9_000), 1),
                (replace(ENDED, round=number, message="y" * 9_000), 2),
                (replace(FORMED, round=number + 1), 3),
            ]
        found = led_to(*records)
        assert [change.round for change in found] == list(range(3, KEPT_MAX + 3))
        assert {len(change.message) for change in found} == {MESSAGE_BYTES}


def test_of_what_was_seen_the_newest_is_kept() -> None:
    seen = Sightings()
    for number in range(100):
        seen.became_durable(number, number)
        seen.all_run(number, number)
    assert list(seen.durable) == list(range(100 - 2 * KEPT_MAX, 100))
    assert list(seen.all_ran) == list(range(100 - KEPT_MAX, 100))


def test_a_change_begins_without_what_is_to_come() -> None:
    (change,) = led_to((STOPPED, 120))
    assert change == RoundChange(
        round=0,
        cause=StopCause.NODE_LEFT,
        message="b left",
        happened_wall_ms=100,
        noticed_wall_ms=100,
        stopped_wall_ms=120,
        stop_revision=1,
    )
