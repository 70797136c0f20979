"""Every record in every state: applied as the table says, or refused and nothing changed."""

from __future__ import annotations

import copy
import typing
from dataclasses import replace

import pytest

from rallypoint.model import AgentPhase, Endpoint, JobSpec, JobState, NodeSpec, Observed, Outcome, Version
from rallypoint_coordinator.core.events import Request
from rallypoint_coordinator.core.evolve import GONE_NODES_MAX, TRANSITIONS, IllegalTransition, evolve
from rallypoint_coordinator.core.places import places_of
from rallypoint_coordinator.core.records import (
    GoneReason,
    JobCancelled,
    JobCreated,
    JobDecided,
    JobHeld,
    JobReleased,
    JobUpdated,
    LeaseRevoked,
    LifeForgotten,
    LifeRecord,
    MemberGone,
    MemberJoined,
    NodeDrained,
    NodeExpelled,
    NodeReadmitted,
    NodeSucceeded,
    RecoveryBegan,
    RecoveryEnded,
    RestartAsked,
    RoundAdopted,
    RoundEnded,
    RoundFormed,
    RoundStopping,
    Seat,
    StopCause,
)
from rallypoint_coordinator.core.state import Facts
from support.coordinator_script import Script

SPEC = JobSpec(min_nodes=1, max_nodes=1)
SEAT = Seat(node="a", lease_id=3, local_world_size=1, role="default")


def facts_in(state: JobState) -> Facts:
    script = Script()
    (a,) = script.attached("a", SPEC)
    if state is JobState.RECOVERING:
        a.attach(highest_version=Version(9, 1), observed=Observed())
    elif state is JobState.GATHERING:
        a.fail()
        return Script().attached("z", JobSpec(min_nodes=2, max_nodes=2))[0].script.life.facts
    if state is JobState.STOPPING:
        a.report(AgentPhase.STOPPING)
    elif state is JobState.SUCCEEDED:
        a.report(AgentPhase.SUCCEEDED)
    elif state is JobState.FAILED:
        a.fail()
    elif state is JobState.CANCELLED:
        script.ask(Request.CANCEL)
        a.clear()
    facts = script.life.facts
    assert facts.state is state
    return facts


def records_for(facts: Facts) -> dict[type[LifeRecord], LifeRecord]:
    """One well-formed record of each kind."""
    number = facts.round_number
    node = next(iter(facts.members))
    decided = facts.state if facts.outcome else JobState.SUCCEEDED
    if facts.state is JobState.GATHERING:
        decided = JobState.FAILED
    made: list[LifeRecord] = [
        JobCreated(spec=SPEC),
        MemberJoined(node="n", incarnation="i", spec=NodeSpec(), capabilities=frozenset(), agent_version=""),
        LeaseRevoked(node=node, lease_id=facts.members[node].lease_id, message="late"),
        MemberGone(node=node, lease_id=facts.members[node].lease_id, reason=GoneReason.LEFT, message=""),
        RecoveryBegan(epoch=9),
        RoundAdopted(
            round=number + 1,
            restart_count=0,
            places=tuple(places_of((SEAT,)).values()),
            world_size=1,
            endpoint=Endpoint("h", 1),
            offer_node=node,
            offer_id=1,
        ),
        RecoveryEnded(),
        RoundFormed(
            round=number + 1,
            seats=(Seat(node=node, lease_id=facts.members[node].lease_id, local_world_size=1, role="default"),)
            * facts.spec.min_nodes,
            endpoint=Endpoint("h", 1),
            offer_id=1,
        ),
        NodeSucceeded(round=number, node=node),
        RoundStopping(round=number, cause=StopCause.NODE_LEFT, message=""),
        RoundEnded(round=number, charged=True, culprit=None, message=""),
        JobCancelled(by="o", reason=""),
        RestartAsked(by="o", reason=""),
        NodeDrained(node=node, lease_id=facts.members[node].lease_id, by="o", reason=""),
        JobUpdated(by="o", reason="", min_nodes=1, max_nodes=3, max_restarts=2, labels={"a": "b"}, told="much"),
        JobHeld(by="o", reason="", since_wall_ms=1, until_wall_ms=2),
        JobReleased(by="o", reason=""),
        NodeExpelled(node=node, lease_id=facts.members[node].lease_id, round=number, pids=(7,)),
        NodeReadmitted(node=node, lease_id=facts.members[node].lease_id),
        JobDecided(outcome=Outcome(state=decided, reason="R", message="m")),
        LifeForgotten(),
    ]
    return {type(record): record for record in made}


KINDS = typing.get_args(LifeRecord)


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("kind", KINDS)
def test_cell(state: JobState, kind: type[LifeRecord]) -> None:
    facts = facts_in(state)
    record = records_for(facts)[kind]
    before = copy.deepcopy(facts)
    unended = facts.round is not None and not facts.round.ended
    if kind is JobReleased and kind in TRANSITIONS[state]:
        facts.hold = before.hold = JobHeld(by="o", reason="", since_wall_ms=1, until_wall_ms=2)
    # What is on record of the round decides too.
    if kind not in TRANSITIONS[state] or (kind is RecoveryEnded and unended):
        with pytest.raises(IllegalTransition):
            evolve(facts, record, revision=100, wall_ms=5)
        assert facts == before
        return
    evolve(facts, record, revision=100, wall_ms=5)
    assert facts.revision == 100
    assert facts.state in (TRANSITIONS[state][kind] or (state,))


@pytest.mark.parametrize(
    ("state", "outcome"), [(JobState.RUNNING, JobState.FAILED), (JobState.GATHERING, JobState.SUCCEEDED)]
)
def test_a_job_fails_only_with_no_round_and_succeeds_only_in_one(state: JobState, outcome: JobState) -> None:
    record = JobDecided(outcome=Outcome(state=outcome, reason="R", message="m"))
    with pytest.raises(IllegalTransition):
        evolve(facts_in(state), record, revision=100, wall_ms=5)


def test_a_round_number_is_never_reused_or_skipped() -> None:
    facts = facts_in(JobState.GATHERING)
    for number in (-1, 1, 5):
        with pytest.raises(IllegalTransition):
            evolve(
                facts,
                RoundFormed(round=number, seats=(SEAT,), endpoint=Endpoint("h", 1), offer_id=1),
                revision=100,
                wall_ms=5,
            )


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_round_has_as_many_nodes_as_the_spec_in_force_says(nodes: int) -> None:
    facts = facts_in(JobState.GATHERING)
    with pytest.raises(IllegalTransition, match="nodes of 2 to 2"):
        evolve(
            facts,
            RoundFormed(round=0, seats=(SEAT,) * nodes, endpoint=Endpoint("h", 1), offer_id=1),
            revision=100,
            wall_ms=5,
        )


def test_what_is_not_held_cannot_be_released() -> None:
    with pytest.raises(IllegalTransition, match="not held"):
        evolve(facts_in(JobState.RUNNING), JobReleased(by="o", reason=""), revision=100, wall_ms=5)


def test_agents_go_on_being_compared_with_what_they_agreed_on() -> None:
    facts = facts_in(JobState.RUNNING)
    update = JobUpdated(by="o", reason="", min_nodes=1, max_nodes=3, max_restarts=2, labels={}, told="much")
    evolve(facts, update, revision=100, wall_ms=5)
    assert facts.spec == replace(SPEC, max_nodes=3, max_restarts=2)
    assert facts.agreed_spec == SPEC
    evolve(facts, replace(update, max_nodes=1, max_restarts=0), revision=101, wall_ms=6)
    assert (facts.spec, facts.replaced_spec) == (SPEC, None)


def test_restarts_that_agents_know_of_were_allowed() -> None:
    facts = facts_in(JobState.RUNNING)
    evolve(facts, RecoveryBegan(epoch=9, restart_count=4), revision=100, wall_ms=5)
    assert (facts.restart_count, facts.spec.max_restarts, facts.agreed_spec.max_restarts) == (4, 4, 0)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, {"a"}),
        ({"endpoint": Endpoint("elsewhere", 1)}, set()),
        ({"restart_count": 1}, set()),
        ({"world_size": 2}, set()),
        ({"round": 1}, set()),
    ],
    ids=str,
)
def test_a_success_is_kept_only_if_it_is_the_same_round_that_is_adopted(
    changes: dict[str, object], kept: set[str]
) -> None:
    facts = facts_in(JobState.RECOVERING)
    assert facts.round is not None
    facts.round.succeeded = {"a"}
    record = RoundAdopted(
        round=facts.round.number,
        restart_count=facts.round.restart_count,
        places=tuple(facts.round.places.values()),
        world_size=facts.round.world_size,
        endpoint=facts.round.endpoint,
        offer_node="a",
        offer_id=1,
    )
    evolve(facts, replace(record, **changes), revision=100, wall_ms=5)  # type: ignore[arg-type]
    assert facts.round.succeeded == kept


def test_a_lease_ends_once() -> None:
    facts = facts_in(JobState.GATHERING)
    node, member = next(iter(facts.members.items()))
    record = MemberGone(node=node, lease_id=member.lease_id, reason=GoneReason.LEFT, message="")
    evolve(facts, record, revision=100, wall_ms=5)
    with pytest.raises(IllegalTransition):
        evolve(facts, record, revision=101, wall_ms=5)


def test_ranks_follow_from_the_order_of_the_seats() -> None:
    seats = tuple(
        Seat(node=node, lease_id=index, local_world_size=size, role=role)
        for index, (node, size, role) in enumerate((("a", 2, "x"), ("b", 3, "y"), ("c", 1, "x")))
    )
    places = places_of(seats)
    assert [(p.group_rank, p.first_rank, p.first_role_rank, p.role_world_size) for p in places.values()] == [
        (0, 0, 0, 3),
        (1, 2, 0, 3),
        (2, 5, 2, 3),
    ]


def test_so_many_gone_nodes_are_remembered() -> None:
    """Those that went last; a job may see any number of names."""
    facts = Facts(job="train", uid="uid", spec=SPEC, created_wall_ms=0)
    for number in range(GONE_NODES_MAX + 10):
        joined = MemberJoined(
            node=f"n{number}", incarnation="i", spec=NodeSpec(), capabilities=frozenset(), agent_version=""
        )
        gone = MemberGone(node=f"n{number}", lease_id=2 * number, reason=GoneReason.LEFT, message="")
        evolve(facts, joined, revision=2 * number, wall_ms=0)
        evolve(facts, gone, revision=2 * number + 1, wall_ms=0)
    assert list(facts.members) == list(facts.gone_nodes) == [f"n{10 + number}" for number in range(GONE_NODES_MAX)]
    assert not facts.unavailable
