"""Which life a Hello belongs to, when the one that it names may be unknown or lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import AgentPhase, Capability, JobSpec, JobState, Observed, Version
from rallypoint_coordinator.core.effects import Explain, RefuseStream, SendWelcome
from rallypoint_coordinator.core.events import Request
from rallypoint_coordinator.core.records import RoundEnded
from support.coordinator_script import Agent, Script, effects_of, kinds, outcome_told

PAIR = JobSpec(min_nodes=2, max_nodes=2)


@pytest.fixture
def script() -> Script:
    return Script()


def lost_pair(script: Script) -> tuple[Agent, Agent]:
    """Two agents that run round 0 of life "uid0", of which nothing is on record any more."""
    a, b = script.running("ab", PAIR)
    script.lose()
    return a, b


def refused(agent: Agent, **changes: Any) -> Reason | None:
    """Why the agent's next Hello is refused; None if it is not."""
    refusal = refusal_of(agent, **changes)
    return refusal.reason if refusal is not None else None


def refusal_of(agent: Agent, **changes: Any) -> Refusal | None:
    """What the agent's next Hello is refused with; None if it is not."""
    refusals = effects_of(agent.attach(**changes), RefuseStream)
    return next((effect.refusal for effect in refusals if effect.stream == agent.stream), None)


class TestUnknown:
    def test_of_this_history_it_is_refused(self, script: Script) -> None:
        (a,) = script.attached("a", PAIR)
        a.observed = Script().running("ab", PAIR)[0].observed
        assert refused(a, job_uid="unheard-of") is Reason.UNKNOWN_LIFE

    def test_the_life_of_another_job_is_none_of_this_one(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        stranger = script.agent("c", a.spec)
        assert refused(stranger, job="other", job_uid=script.life.facts.uid) is Reason.UNKNOWN_LIFE
        assert script.life.facts.state is JobState.RUNNING

    def test_without_a_round_it_joins_the_one_that_is_open(self, script: Script) -> None:
        a, _ = script.attached("ab", JobSpec(min_nodes=3, max_nodes=3))
        late = script.agent("c", a.spec)
        out = late.attach(job_uid="unheard-of")
        assert effects_of(out, SendWelcome)[0].welcome.job_uid == script.life.facts.uid

    def test_without_a_round_and_an_open_life_it_is_refused(self, script: Script) -> None:
        assert refused(script.agent("c", PAIR), job_uid="unheard-of") is Reason.UNKNOWN_LIFE


class TestLostWelcome:
    """C10: an agent that never had an answer offers a port that a round of the decided life may have used."""

    def test_the_outcome_of_its_life_is_its_own_though_its_lease_is_over(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        offered, used = Observed(offer=a.observed.offer), script.life.facts.round
        assert used is not None
        assert offered.offer is not None
        assert offered.offer.endpoint == used.endpoint
        a.break_stream()
        script.ask(Request.CANCEL)
        b.clear()
        script.advance(32_000)
        assert script.life.facts.outcome is not None
        a.welcome = a.directive = None
        a.observed = offered
        a.attach(fresh=True)
        assert outcome_told(a) == "CANCELLED CANCELLED"
        assert script.lives_begun == 1

    def test_a_later_agent_of_the_node_begins_a_new_life(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        for agent in (a, b):
            agent.report(AgentPhase.SUCCEEDED)
        a.reborn().attach()
        assert script.lives_begun == 2


class TestAbandoned:
    """A life that nobody is left in gives way to who wants another job under its name."""

    OTHER = JobSpec(min_nodes=2, max_nodes=3)

    def test_the_life_is_decided_and_another_begins_in_the_same_step(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.leave()
        b.leave()
        old = script.life.facts
        out = script.agent("c", self.OTHER).attach()
        assert kinds(out) == ["JobDecided", "JobCreated", "MemberJoined"]
        assert old.outcome is not None
        assert (old.outcome.state, old.outcome.reason) == (JobState.FAILED, "ABANDONED")
        assert old.outcome.message == "no node was left, and c came with another spec: max_nodes 3, not 2"
        explained = effects_of(out, Explain)
        assert [(effect.job_uid, effect.reason) for effect in explained] == [
            ("uid0", "ABANDONED"),
            ("uid1", "WAITING_FOR_NODES"),
        ]
        assert (script.life.facts.uid, script.life.facts.spec) == ("uid1", self.OTHER)

    def test_the_one_that_is_given_up_is_waited_for_no_longer(self, script: Script) -> None:
        (a,) = script.attached("a", PAIR)
        a.leave()
        c = script.agent("c", self.OTHER)
        c.attach()
        c.leave()
        script.advance(PAIR.join_timeout_ms - 1)
        assert kinds(script.advance(1)) == ["JobDecided"], "that is the second life's join timeout"
        assert script.next_deadline_ms is None

    def test_however_its_members_have_gone(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        a.obituary()
        b.break_stream()
        script.advance(32_000)
        assert kinds(script.agent("c", self.OTHER).attach())[:2] == ["JobDecided", "JobCreated"]

    def test_not_while_it_is_held(self, script: Script) -> None:
        (a,) = script.attached("a", PAIR)
        script.hold()
        a.leave()
        out = script.agent("c", self.OTHER).attach()
        assert kinds(out) == []
        (refusal,) = [effect.refusal for effect in effects_of(out, RefuseStream)]
        assert refusal.reason is Reason.SPEC_MISMATCH
        assert refusal.metadata["held"] == "the job is held by ops: maintenance"
        assert refusal.message.endswith("; the job is held by ops: maintenance")
        script.ask(Request.RELEASE)
        assert kinds(script.agent("c", self.OTHER).attach())[:2] == ["JobDecided", "JobCreated"]

    def test_a_long_reason_for_holding_it_is_told_in_short(self, script: Script) -> None:
        """A status has to fit into the headers of HTTP/2, where each byte that is not ASCII takes three."""
        (a,) = script.attached("a", PAIR)
        script.hold(reason="\u754c" * 341)
        a.leave()
        refusal = refusal_of(script.agent("c", self.OTHER))
        assert refusal is not None
        assert len(refusal.metadata["held"].encode()) < 300
        assert len(refusal.message.encode()) < 400

    def test_a_silent_node_of_a_held_job_is_not_all_that_is_waited_for(self, script: Script) -> None:
        (a,) = script.attached("a", PAIR)
        script.hold()
        c = refusal_of(script.agent("c", self.OTHER))
        assert c is not None
        assert "held" not in c.metadata, "somebody is there"
        a.break_stream()
        d = refusal_of(script.agent("d", self.OTHER))
        assert d is not None
        assert d.metadata["held"] == "a was heard last, and its lease ends in 32 s; the job is held by ops: maintenance"

    def test_the_same_spec_goes_on_with_what_was_spent(self, script: Script) -> None:
        agents = script.running("ab", replace(PAIR, max_restarts=3))
        agents[0].fail()
        agents[1].clear()
        for agent in agents:
            agent.run()
            agent.leave()
        assert kinds(agents[0].reborn().attach()) == ["MemberJoined"]
        assert (script.life.facts.uid, script.life.facts.restart_count) == ("uid0", 1)

    @pytest.mark.parametrize("silent", [False, True])
    def test_not_while_a_lease_is_live(self, script: Script, silent: bool) -> None:
        a, b = script.running("ab", PAIR)
        a.leave()
        b.clear()
        if silent:
            b.break_stream()
        assert refused(script.agent("c", self.OTHER)) is Reason.SPEC_MISMATCH
        assert script.life.facts.outcome is None

    def test_not_while_what_workers_left_behind_is_waited_for(self, script: Script) -> None:
        a = script.agent("a", JobSpec())
        a.capabilities -= {Capability.KILLS_TREES}
        a.attach()
        a.run()
        a.leave()
        assert script.life.facts.state is JobState.STOPPING
        assert refused(script.agent("c", self.OTHER)) is Reason.SPEC_MISMATCH

    def test_not_while_its_records_are_asked_for(self, script: Script) -> None:
        a, _ = lost_pair(script)
        a.attach()
        a.leave()
        assert (script.life.facts.state, script.life.facts.live_count) == (JobState.RECOVERING, 0)
        assert refused(script.agent("c", self.OTHER)) is Reason.SPEC_MISMATCH

    @pytest.mark.parametrize(
        "changes",
        [
            {"job_uid": "uid0"},
            {"lease_id": 3},
            {"observed": Observed(phase=AgentPhase.RUNNING)},
            {"highest_version": Version(9, 9)},
        ],
    )
    def test_not_for_who_is_no_new_agent(self, script: Script, changes: dict[str, Any]) -> None:
        (a,) = script.attached("a", PAIR)
        a.leave()
        assert refused(script.agent("c", self.OTHER), **changes) is Reason.SPEC_MISMATCH
        assert script.life.facts.outcome is None

    def test_not_for_a_member_of_it_that_never_had_an_answer(self, script: Script) -> None:
        (a,) = script.attached("a", PAIR)
        a.break_stream()
        script.advance(32_000)
        a.welcome = None
        assert refused(a, job_spec=self.OTHER) is Reason.SPEC_MISMATCH
        assert script.life.facts.outcome is None

    def test_after_a_restart_of_the_coordinator_as_before(self, script: Script) -> None:
        (a,) = script.attached("a", PAIR)
        a.leave()
        script.restart()
        assert kinds(script.agent("c", self.OTHER).attach())[:2] == ["JobDecided", "JobCreated"]


class TestLost:
    def test_it_comes_back_under_its_uid(self, script: Script) -> None:
        a, b = lost_pair(script)
        assert kinds(a.attach()) == ["StateLost", "JobCreated", "RecoveryBegan", "MemberJoined"]
        assert (script.life.facts.uid, script.life.facts.state) == ("uid0", JobState.RECOVERING)
        assert kinds(b.attach()) == ["MemberJoined", "RoundAdopted"]

    def test_a_life_without_a_round_gives_way_and_its_agents_come_over(self, script: Script) -> None:
        a, _ = lost_pair(script)
        fresh = script.agent("c", PAIR)
        fresh.attach()
        given_up = fresh.stream
        out = a.attach()
        (refusal,) = effects_of(out, RefuseStream)
        assert (refusal.stream, refusal.refusal.reason) == (given_up, Reason.RECOVERING)
        assert not refusal.refusal.final
        assert refused(fresh) is None
        assert script.life.facts.uid == "uid0"
        assert set(script.life.facts.members) == {"a", "c"}

    def test_the_hold_of_a_life_that_gives_way_stays_the_jobs(self, script: Script) -> None:
        a, b = lost_pair(script)
        script.agent("c", PAIR).attach()
        script.hold(100_000)
        held = script.life.facts.hold
        assert kinds(a.attach())[-4:] == ["JobCreated", "JobHeld", "RecoveryBegan", "MemberJoined"]
        assert script.life.facts.hold == held
        b.attach()
        assert script.life.facts.state is JobState.RUNNING
        script.advance(99_999)
        assert script.life.facts.hold is not None
        script.advance(1)
        assert script.life.facts.hold is None

    def test_a_life_with_a_round_does_not(self, script: Script) -> None:
        a, _ = lost_pair(script)
        script.running("cd", PAIR)
        assert refused(a) is Reason.UNKNOWN_LIFE
        assert kinds(a.attach()) == [], "what is refused is not recorded"
        assert script.life.facts.state is JobState.RUNNING

    def test_another_that_is_being_recovered_does_not_either(self, script: Script) -> None:
        a, b = lost_pair(script)
        a.attach()
        assert refused(b, job_uid="yet-another") is Reason.UNKNOWN_LIFE

    def test_another_spec_begins_no_recovery(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        ahead = Version(script.cluster.epoch, script.stamp.revision + 1)
        other = JobSpec(min_nodes=2, max_nodes=3)
        assert refused(a, job_spec=other, highest_version=ahead) is Reason.SPEC_MISMATCH
        assert script.life.facts.state is JobState.RUNNING
        assert b.told == "Run ROUND_FORMED"

    def test_what_is_decided_stays_decided(self, script: Script) -> None:
        a, b = script.running("ab", PAIR)
        for agent in (a, b):
            agent.report(AgentPhase.SUCCEEDED)
        a.attach(highest_version=Version(script.cluster.epoch, script.stamp.revision + 1))
        assert script.life.facts.state is JobState.SUCCEEDED
        assert a.told == "Exit ALL_SUCCEEDED"


def test_revisions_of_a_lost_journal_prove_nothing_of_this_one(script: Script) -> None:
    """C4: b says that no worker is alive. The order to run is under way to it, and it has not seen the stop."""
    seen = Version(script.cluster.epoch, 9_000)
    a, b = (script.agent(node, PAIR) for node in "ab")
    a.attach()
    b.attach(job_uid="lost", cluster_id="lost-cluster", highest_version=seen)
    a.fail()
    out = b.report(AgentPhase.READY, round=-1, assignment=None, version=seen, offer=b.next_offer())
    assert RoundEnded.__name__ not in kinds(out)
    assert script.life.facts.state is JobState.STOPPING
    assert RoundEnded.__name__ in kinds(b.clear())
