"""A journal that went backwards under a running job: what agents are told, whatever happened to it since."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import NO_VERSION, AgentPhase, Hello, JobSpec, JobState, NodeSpec
from rallypoint_coordinator.core import invariants
from rallypoint_coordinator.core.events import AgentAttached
from rallypoint_coordinator.core.records import NodeReadmitted, RoundAdopted, RoundStopping
from support.coordinator_script import Agent, Script, kinds

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=3)


@pytest.fixture
def script() -> Script:
    return Script()


def next_round(a: Agent, b: Agent) -> None:
    """a's worker fails, and both run the round after that."""
    a.fail()
    b.clear()
    a.run()
    b.run()


class TestNoticing:
    @pytest.mark.parametrize("restarts", [0, 1, 3, 200])
    def test_however_often_the_coordinator_started_since(self, script: Script, restarts: int) -> None:
        a, b = script.running("ab", PAIR)
        kept = len(script.journal)
        next_round(a, b)
        script.lose(kept)
        for _ in range(restarts):
            script.restart()
        a.attach()
        assert a.told == "Keep RECOVERING"
        b.attach()
        assert (a.told, b.told, a.assignment.round) == ("Run ROUND_FORMED", "Run ROUND_FORMED", 1)

    def test_whatever_else_was_decided_since(self, script: Script) -> None:
        """Both histories have an epoch of that number, and this one's is longer by now."""
        a, b = script.running("ab", PAIR)
        kept = len(script.journal)
        script.restart()
        a.attach()
        b.attach()
        next_round(a, b)
        script.lose(kept)
        for job in ("other", "another"):
            begin(script, job)
        a.attach()
        assert a.told == "Keep RECOVERING"
        b.attach()
        assert (a.told, a.assignment.round) == ("Run ROUND_FORMED", 1)

    def test_a_lease_that_was_never_given(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        script.lose(3)
        a.attach(lease_id=99, highest_version=NO_VERSION)
        assert script.life.facts.state is JobState.RECOVERING

    def test_a_restart_in_the_middle_of_a_recovery_gives_nobody_up(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        script.lose(3)
        a.attach()
        script.restart()
        a.attach()
        b.attach()
        assert (a.told, b.told) == ("Run ROUND_FORMED", "Run ROUND_FORMED")
        assert script.life.facts.round_number == 0

    def test_a_job_that_lost_nothing_is_not_recovered(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        for _ in range(100):
            script.restart()
        for agent in (a, b):
            agent.attach()
            assert agent.told == "Run ROUND_FORMED"
        assert "RecoveryBegan" not in [type(entry.record).__name__ for entry in script.journal]


def begin(script: Script, job: str) -> None:
    stream = script.next_stream()
    script.by_stream[stream] = script.agent("y", JobSpec())
    hello = Hello(
        job=job,
        node="y",
        incarnation="i",
        attach_seq=1,
        job_spec=JobSpec(min_nodes=2, max_nodes=2),
        node_spec=NodeSpec(),
    )
    script.feed(AgentAttached(stream=stream, hello=hello, peer="", fresh_uid=f"uid-{job}", clock=None))


class TestQuarantineOfTheBackup:
    """It is on record that b was stuck; that it was readmitted, and ran a later round since, is not."""

    @pytest.fixture
    def pair(self, script: Script) -> tuple[Agent, Agent]:
        a, b = script.running("ab", JobSpec(min_nodes=1, max_nodes=2, max_restarts=3))
        b.report(AgentPhase.STOPPING, unkillable_pids=(77,))
        a.clear()
        kept = len(script.journal)
        a.run()
        b.clear()
        a.clear()
        a.run()
        b.run()
        assert script.life.facts.round_number == 2
        script.lose(kept)
        return a, b

    @pytest.mark.parametrize("order", ["ab", "ba"])
    def test_who_runs_a_later_round_is_readmitted(self, script: Script, pair: tuple[Agent, Agent], order: str) -> None:
        a, b = pair
        agents = dict(zip("ab", pair, strict=True))
        agents[order[0]].attach()
        assert agents[order[0]].told == "Keep RECOVERING"
        agents[order[1]].attach()
        assert (a.told, b.told) == ("Run ROUND_FORMED", "Run ROUND_FORMED")
        assert sum(isinstance(entry.record, NodeReadmitted) for entry in script.journal) == 1
        invariants.check(script.life)

    def test_its_workers_are_waited_for(self, script: Script, pair: tuple[Agent, Agent]) -> None:
        a, b = pair
        a.attach()
        b.attach()
        a.fail()
        assert script.life.facts.state is JobState.STOPPING, "b has workers"
        assert kinds(b.clear())[:2] == ["RoundEnded", "RoundFormed"]

    def test_who_is_stuck_now_is_not(self, script: Script, pair: tuple[Agent, Agent]) -> None:
        a, b = pair
        a.attach()
        b.observed = replace(b.observed, phase=AgentPhase.STOPPING, unkillable_pids=(78,))
        b.attach()
        assert not any(isinstance(entry.record, NodeReadmitted) for entry in script.journal)
        assert script.life.facts.members["b"].unkillable_pids == (77,)
        invariants.check(script.life)


class TestAdoptedInPart:
    def test_what_a_crash_left_running_is_ended(self, script: Script) -> None:
        """The adoption is durable, the stop that came with it is not."""
        a, b, _ = agents = script.running("abc", JobSpec(min_nodes=3, max_nodes=3, max_restarts=3))
        assert all(agent.told == "Run ROUND_FORMED" for agent in agents)
        script.lose()
        a.attach()
        b.attach()
        before = a.directive, b.directive
        for _ in range(8):
            script.advance(4_000)
            a.heartbeat()
            b.heartbeat()
        adopted = next(i for i, entry in enumerate(script.journal) if isinstance(entry.record, RoundAdopted))
        assert isinstance(script.journal[adopted + 1].record, RoundStopping)
        del script.journal[adopted + 1 :]
        a.directive, b.directive = before
        script.restart()
        assert script.life.facts.state is JobState.STOPPING
        assert script.message.startswith("round 0 is being stopped: nodes of round 0 did not come back")
        invariants.check(script.life)
        a.attach()
        b.attach()
        assert (a.told, b.told) == ("Stop NODE_LOST", "Stop NODE_LOST")
