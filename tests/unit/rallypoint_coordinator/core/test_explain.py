"""Stories of what is said of a life's state."""

from __future__ import annotations

import pytest

from rallypoint.model import AgentPhase, JobSpec
from rallypoint_coordinator.core.effects import Explain
from rallypoint_coordinator.core.explain import as_of
from support.coordinator_script import Script, effects_of

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)


@pytest.fixture
def script() -> Script:
    return Script()


class TestExplanation:
    def test_every_change_of_reason_is_explained_once(self, script: Script) -> None:
        a = script.agent("a", PAIR)
        assert [effect.message for effect in effects_of(a.attach(), Explain)] == ["waiting for 2 nodes: 1 ready"]
        assert effects_of(a.report(), Explain) == []

    def test_a_participant_that_is_silent_is_named_with_the_end_of_its_lease(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        running = "round 0 runs, restart 0 of 1: 2 nodes, 2 workers"
        b.break_stream()
        said = [as_of(script.life, script.now_ms)[0]]
        for _ in range(3):
            script.advance(5_000)
            a.heartbeat()
            said.append(as_of(script.life, script.now_ms)[0])
        silent = f"{running}: b has said nothing for {{}} s and is lost when its lease ends"
        assert said == [running, silent.format(5), silent.format(10), silent.format(15)]
        assert as_of(script.life, script.now_ms)[1] == script.life.watch.leases.of(b.lease_id)
        b.attach()
        assert as_of(script.life, script.now_ms) == (running, None)

    def test_so_is_one_whose_stream_is_open_once_two_heartbeats_are_overdue(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        for silent_s in range(1, 14):
            script.advance(1_000)
            a.heartbeat()
            assert ("b has said nothing" in as_of(script.life, script.now_ms)[0]) == (silent_s > 11)

    def test_who_is_not_needed_is_not_spoken_of(self, script: Script) -> None:
        """A standby, and a node that has succeeded."""
        a, b = script.running("ab", PAIR)
        c = script.agent("c", PAIR)
        c.attach()
        b.report(AgentPhase.SUCCEEDED)
        b.break_stream()
        c.break_stream()
        script.advance(8_000)
        a.heartbeat()
        assert as_of(script.life, script.now_ms)[0].endswith("2 workers: 1 node succeeded")

    def test_every_waiting_state_has_a_deadline(self, script: Script) -> None:
        a, b = script.attached("ab", PAIR)
        assert script.next_deadline_ms is not None
        a.run()
        b.run()
        a.fail()
        assert script.life.watch.until_ms is not None

    def test_who_is_not_stopped_in_time_is_waited_for_until_its_lease_is_over(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.fail()
        while not script.life.facts.members["b"].revoked:
            script.advance(5_000)
            for agent in (a, b):
                agent.heartbeat()
        assert script.life.watch.until_ms == script.life.watch.leases.of(b.lease_id)
