"""Whose agent it is: which Welcome it accepts, and what becomes of it if it cannot."""

from __future__ import annotations

import pytest

from rallypoint.model import AgentPhase, Hold, Keep
from rallypoint_agent.core.effects import Effect, Finish, FinishKind, Leave, Report, SetIdentity, StopWorkers
from rallypoint_agent.core.events import Detached, LeaseRenewed
from support.agent_script import AgentScript, assignment, of


def first_attached(*, ran: bool) -> AgentScript:
    """To life "uid" of cluster-1; the connection broke since then."""
    agent = AgentScript()
    agent.attach()
    if ran:
        agent.run()
    agent.feed(Detached())
    return agent


@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize(
    ("cluster_id", "takes_over", "job_uid", "accepted"),
    [
        ("cluster-1", "", "uid", "always"),
        ("cluster-2", "cluster-1", "uid", "always"),
        ("cluster-2", "", "uid", "never"),
        ("cluster-2", "cluster-3", "uid", "never"),
        ("cluster-1", "", "other", "without a round"),
        ("cluster-2", "cluster-1", "other", "without a round"),
    ],
)
def test_a_welcome_of_another_is_accepted_only_in_its_place(
    cluster_id: str, takes_over: str, job_uid: str, accepted: str, ran: bool
) -> None:
    agent = first_attached(ran=ran)
    effects = agent.attach(cluster_id=cluster_id, takes_over=takes_over, job_uid=job_uid, lease_id=9)
    if accepted == "always" or (accepted == "without a round" and not ran):
        assert of(effects, SetIdentity) == [SetIdentity(cluster_id, job_uid, 9)]
        assert agent.core.state.attached
        return
    assert not of(effects, SetIdentity)
    assert not agent.core.state.attached
    assert bool(of(effects, StopWorkers)) is ran
    ended = effects if not ran else agent.gone()
    assert_refused(ended)


def assert_refused(effects: list[Effect]) -> None:
    (finish,) = of(effects, Finish)
    assert finish.kind is FinishKind.REFUSED
    assert not of(effects, Leave), "a stranger is told nothing"


def test_a_stranger_renews_no_lease() -> None:
    agent = first_attached(ran=True)
    before = agent.core.state.lease.contact_ms
    agent.now_ms += 5_000
    agent.attach(cluster_id="cluster-2")
    agent.feed(LeaseRenewed(agent.now_ms))
    assert agent.core.state.lease.contact_ms == before


def test_it_pins_the_cluster_that_took_over() -> None:
    agent = first_attached(ran=True)
    agent.attach(cluster_id="cluster-2", takes_over="cluster-1")
    agent.feed(Detached())
    assert of(agent.attach(cluster_id="cluster-1"), StopWorkers), "the one before is a stranger now"


def test_what_it_was_told_to_run_is_said_whatever_became_of_it() -> None:
    agent = AgentScript()
    agent.attach()
    assert of(agent.direct(Hold()), Report)[-1].observed.assignment is None
    effects = agent.run(3, restart_count=2, first_rank=4, world_size=6)
    told = assignment(3, restart_count=2, first_rank=4, world_size=6)
    agent.fail()
    effects += agent.gone()
    agent.feed(Detached())
    agent.attach()
    effects += agent.direct(Keep())
    reports = [effect.observed for effect in of(effects, Report)]
    assert {report.phase for report in reports} >= {AgentPhase.RUNNING, AgentPhase.FAILED}
    assert all(report.assignment == told for report in reports)
