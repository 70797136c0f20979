"""Which decided lives are forgotten, and when; what is left of them."""

from __future__ import annotations

import pytest

from rallypoint.errors import Reason
from rallypoint.limits import DAY_MS
from rallypoint.model import AgentPhase, JobSpec
from rallypoint_coordinator.core import directory
from rallypoint_coordinator.core import evolve as evolve_module
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.core.effects import Output, RefuseStream, SendLeaseStale, SendWelcome
from rallypoint_coordinator.core.evolve import IllegalTransition
from rallypoint_coordinator.core.records import Entry, LifeForgotten
from support.coordinator_script import JOB, Agent, Script, effects_of, kinds, replayed

SPEC = JobSpec(min_nodes=1, max_nodes=1)
EVER_MS = 10**15


def life_of(script: Script, job: str, nodes: int) -> None:
    """One life of a job with so many nodes, which succeeds."""
    agents = [script.agent(f"n{number}", JobSpec(min_nodes=nodes, max_nodes=nodes)) for number in range(nodes)]
    for agent in agents:
        agent.attach(job=job)
    for agent in agents:
        agent.run()
    for agent in agents:
        agent.report(AgentPhase.SUCCEEDED)
    for agent in agents:
        agent.leave()


def life(script: Script, job: str, *, leave: bool = True) -> Agent:
    """One life of a job, which succeeds."""
    agent = script.agent("a", SPEC)
    agent.attach(job=job)
    agent.run()
    agent.report(AgentPhase.SUCCEEDED)
    if leave:
        agent.leave()
    return agent


def retain(script: Script, **changes: int) -> list[str]:
    """The lives that are forgotten, by uid."""
    out = script.cluster.retain(Retention(**{"lives_max": 0, "age_max_ms": EVER_MS, **changes}), script.stamp)
    script.keep(out)
    assert set(kinds(out)) <= {"LifeForgotten"}
    return [entry.job_uid for entry in out.records]


def test_the_earliest_decided_go_first() -> None:
    script = Script()
    for job in "wxyz":
        life(script, job)
    assert retain(script, lives_max=4) == []
    assert retain(script, lives_max=2) == ["uid0", "uid1"]
    assert script.cluster.job_names() == ["y", "z"]
    assert retain(script, lives_max=2) == []


@pytest.mark.parametrize(
    ("nodes_max", "forgotten"),
    [(6, []), (5, ["uid0"]), (4, ["uid0"]), (3, ["uid0", "uid1"]), (0, ["uid0", "uid1"])],
)
def test_so_many_nodes_are_remembered_in_all_but_always_the_life_decided_last(
    nodes_max: int, forgotten: list[str]
) -> None:
    script = Script()
    for nodes, job in ((2, "x"), (1, "y"), (3, "z")):
        life_of(script, job, nodes)
    assert retain(script, lives_max=9, nodes_max=nodes_max) == forgotten
    assert replayed(script.journal).snapshot() == script.cluster.snapshot()


def test_participants_count_whose_departure_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolve_module, "GONE_NODES_MAX", 1)
    script = Script()
    life_of(script, "x", 3)
    life(script, "y")
    assert len(script.cluster.lives["uid0"].facts.members) == 1
    assert retain(script, lives_max=9, nodes_max=4) == []
    assert retain(script, lives_max=9, nodes_max=3) == ["uid0"]


def test_names_of_jobs_are_in_order_and_given_from_any_one_on() -> None:
    script = Script()
    for job in ("m", "b", "x", "b", "a"):
        life(script, job)
    assert script.cluster.job_names() == replayed(script.journal).job_names() == ["a", "b", "m", "x"]
    assert script.cluster.job_names("b") == ["m", "x"]
    assert script.cluster.job_names("c", most=1) == ["m"]
    again = Cluster()
    again.restore(script.cluster.snapshot())
    assert again.job_names() == ["a", "b", "m", "x"]
    assert len(retain(script, lives_max=1)) == 4
    assert script.cluster.job_names() == ["a"]


def test_the_old_go() -> None:
    script = Script()
    life(script, "x")
    script.advance(DAY_MS)
    life(script, "y")
    assert retain(script, lives_max=9, age_max_ms=DAY_MS) == []
    script.advance(1)
    assert retain(script, lives_max=9, age_max_ms=DAY_MS) == ["uid0"]


def test_what_is_not_decided_stays() -> None:
    script = Script()
    script.running("a", SPEC)
    script.advance(10)
    assert retain(script, age_max_ms=0) == []


def test_a_life_whose_agents_may_ask_for_the_outcome_stays_and_so_do_those_after_it() -> None:
    script = Script()
    asking = life(script, "x", leave=False)
    life(script, "y")
    assert retain(script) == []
    asking.leave()
    assert retain(script) == ["uid0", "uid1"]


def test_the_newest_life_of_a_name_outlasts_the_earlier_ones() -> None:
    script = Script()
    for _ in range(3):
        life(script, JOB)
    assert retain(script, lives_max=1) == ["uid0", "uid1"]
    assert script.life.facts.uid == "uid2"
    assert retain(script) == ["uid2"]
    assert script.cluster.current(JOB) is None


def test_replay_forgets_as_well() -> None:
    script = Script()
    for job in "xyz":
        life(script, job)
    retain(script, lives_max=1)
    again = replayed(script.journal)
    assert list(again.lives) == list(script.cluster.lives) == ["uid2"]
    assert again.snapshot() == script.cluster.snapshot()


def test_who_asks_for_a_forgotten_life_is_told_so() -> None:
    script = Script()
    agent = life(script, JOB)
    retain(script)
    (refused,) = effects_of(agent.attach(), RefuseStream)
    assert refused.refusal.reason is Reason.UNKNOWN_LIFE


def test_the_name_is_free_again() -> None:
    script = Script()
    life(script, JOB)
    retain(script)
    assert kinds(script.agent("a", SPEC).attach())[:2] == ["JobCreated", "MemberJoined"]


def test_only_a_decided_life_can_be_forgotten() -> None:
    script = Script()
    script.running("a", SPEC)
    entry = Entry(job=JOB, job_uid="uid0", wall_ms=1, record=LifeForgotten())
    with pytest.raises(IllegalTransition):
        script.cluster.apply(entry, script.stamp.revision + 1)
    assert script.life.facts.uid == "uid0"


@pytest.fixture
def two_lives(monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setattr(directory, "LIVES_MAX", 2)
    return Script()


def test_a_new_life_takes_the_place_of_the_earliest_decided(two_lives: Script) -> None:
    script = two_lives
    told = life(script, "x", leave=False)
    life(script, "y")
    out = script.agent("b", SPEC).attach(job="z")
    assert kinds(out)[:3] == ["LifeForgotten", "JobCreated", "MemberJoined"]
    assert out.records[0].job_uid == "uid0"
    assert script.cluster.job_names() == ["y", "z"]
    assert replayed(script.journal).snapshot() == script.cluster.snapshot()
    assert effects_of(told.heartbeat(), SendLeaseStale), "its agents find out when they speak"
    told.break_stream()
    script.advance(10 * DAY_MS)


def test_there_is_a_limit_if_none_is_decided(two_lives: Script) -> None:
    script = two_lives
    for job in ("x", "y"):
        script.agent("a", SPEC).attach(job=job)
    out = script.agent("b", SPEC).attach(job="z")
    assert refusal_of(out) is Reason.LIMIT_REACHED


def test_the_limit_is_on_jobs_not_on_nodes(two_lives: Script) -> None:
    script = two_lives
    two = JobSpec(min_nodes=2, max_nodes=2)
    for job in ("x", "y"):
        script.agent("a", two).attach(job=job)
    assert effects_of(script.agent("b", two).attach(job="x"), SendWelcome)


def refusal_of(out: Output) -> Reason:
    (refused,) = effects_of(out, RefuseStream)
    return refused.refusal.reason
