"""Stories of a coordinator that starts anew."""

from __future__ import annotations

import pytest

from rallypoint.model import JobSpec, JobState
from support.coordinator_script import Script, kinds, replayed

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)
TRIO = JobSpec(min_nodes=3, max_nodes=3, max_restarts=3)


@pytest.fixture
def script() -> Script:
    return Script()


class TestRestartOfTheCoordinator:
    def test_a_restart_is_invisible_to_the_round(self, script: Script) -> None:
        agents = script.running("abc", TRIO)
        script.restart()
        assert script.cluster.epoch == 2
        outs = [agent.attach() for agent in agents]
        assert [kinds(out) for out in outs] == [[], [], []]
        assert [agent.told for agent in agents] == ["Run ROUND_FORMED"] * 3
        assert all(agent.directive is not None and agent.directive.version.epoch == 2 for agent in agents)

    def test_no_loss_is_decided_before_one_full_lease(self, script: Script) -> None:
        script.running("ab", PAIR)
        script.restart()
        assert kinds(script.advance(30_000)) == []
        assert kinds(script.advance(2_000))[0] == "MemberGone"

    def test_a_restart_while_stopping_waits_for_the_participants_again(self, script: Script) -> None:
        a, b, c = script.running("abc", TRIO)
        a.fail()
        script.restart()
        for agent in (a, b, c):
            agent.attach()
        assert script.life.facts.state is JobState.STOPPING
        b.clear()
        c.clear()
        assert script.life.facts.restart_count == 1
        assert c.assignment.round == 1

    def test_replay_gives_the_same_facts(self, script: Script) -> None:
        a, b, c = script.running("abc", TRIO)
        a.fail()
        b.clear()
        c.obituary()
        live = {uid: life.facts for uid, life in script.cluster.lives.items()}
        assert {uid: life.facts for uid, life in replayed(script.journal).lives.items()} == live
