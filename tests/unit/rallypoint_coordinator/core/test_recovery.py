"""What agents claim, when that is enough, and what is adopted: as values, without a life around them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import (
    NO_ROUND,
    AgentPhase,
    Assignment,
    Endpoint,
    EndpointOffer,
    Hello,
    JobSpec,
    JobState,
    NodeSpec,
    Observed,
    Outcome,
    Version,
)
from rallypoint_coordinator.core import recovery
from rallypoint_coordinator.core.places import places_of
from rallypoint_coordinator.core.records import RecoveryBegan, Seat
from rallypoint_coordinator.core.recovery import Abandon, Adopt, Wait
from rallypoint_coordinator.core.state import Facts, Life, Member, Presence, Round

SPEC = JobSpec(min_nodes=2, max_nodes=4, max_restarts=3, lease_ttl_ms=30_000)
ENDPOINT = Endpoint("10.0.0.1", 4001)
SIZES = {"a": 2, "b": 1, "c": 3, "d": 1}
NOW, OVER = 5_000, 5_000 + 31_030


def held(node: str, nodes: str, number: int = 5, **changes: object) -> Assignment:
    """What the node was told, in a round of these."""
    before = nodes[: nodes.index(node)]
    made = Assignment(
        round=number,
        restart_count=1,
        group_rank=len(before),
        group_world_size=len(nodes),
        first_rank=sum(SIZES[other] for other in before),
        world_size=sum(SIZES[other] for other in nodes),
        first_role_rank=sum(SIZES[other] for other in before),
        role_world_size=sum(SIZES[other] for other in nodes),
        endpoint=ENDPOINT,
        offer_id=0 if before else 7,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def a_life(*, current: Round | None = None, state: JobState = JobState.RECOVERING) -> Life:
    facts = Facts(job="job", uid="uid", spec=SPEC, created_wall_ms=0, state=state, round=current)
    life = Life(facts)
    for lease_id, node in enumerate(SIZES, 10):
        facts.members[node] = Member(
            node=node,
            incarnation=f"{node}1",
            lease_id=lease_id,
            spec=NodeSpec(local_world_size=SIZES[node]),
            capabilities=frozenset(),
            agent_version="",
        )
        life.presences[lease_id] = Presence(node=node, heartbeat_interval_ms=5_000)
    recovery.begin(life, NOW)
    return life


def say(
    life: Life, node: str, claim: Assignment | None, phase: AgentPhase = AgentPhase.RUNNING, **more: object
) -> None:
    member = life.facts.members[node]
    presence = life.presences[member.lease_id]
    number = claim.round if claim is not None else NO_ROUND
    presence.observed = Observed(phase=phase, round=number, assignment=claim, **more)  # type: ignore[arg-type]
    recovery.note(life, member, presence)


def on_record(nodes: str, number: int, *, ended: bool = False, succeeded: str = "") -> Round:
    """A round that the journal knows."""
    seats = tuple(
        Seat(node=node, lease_id=lease_id, local_world_size=SIZES[node], role="default")
        for lease_id, node in enumerate(nodes, 10)
    )
    return Round(
        number=number,
        places=places_of(seats),
        world_size=sum(SIZES[node] for node in nodes),
        endpoint=ENDPOINT,
        offer_id=7,
        restart_count=1,
        succeeded=set(succeeded),
        ended=ended,
    )


def adopted(life: Life, now_ms: int = NOW) -> tuple[int, list[str]]:
    verdict = recovery.consider(life, now_ms)
    assert isinstance(verdict, Adopt), verdict
    return verdict.record.round, [place.seat.node for place in verdict.record.places]


class TestWhole:
    def test_nobody_is_waited_for_when_the_whole_round_is_back(self) -> None:
        life = a_life()
        for node in "cb":
            say(life, node, held(node, "abc"))
            assert recovery.consider(life, OVER - 1) == Wait()
        say(life, "a", held("a", "abc"))
        verdict = recovery.consider(life, NOW)
        assert isinstance(verdict, Adopt)
        assert not verdict.missing
        record = verdict.record
        assert {place.seat.node: place for place in record.places} == places_of(
            tuple(place.seat for place in record.places)
        )
        assert (record.round, record.restart_count, record.world_size) == (5, 1, 6)
        assert (record.endpoint, record.offer_node, record.offer_id) == (ENDPOINT, "a", 7)

    @pytest.mark.parametrize(
        "changes",
        [
            {"number": 4},
            {"number": 6},
            {"restart_count": 2},
            {"group_world_size": 4},
            {"world_size": 7},
            {"endpoint": Endpoint("10.0.0.1", 4002)},
            {"group_rank": 0},
            {"first_rank": 1},
            {"first_role_rank": 1},
            {"role_world_size": 3},
        ],
        ids=str,
    )
    def test_one_that_disagrees_keeps_it_from_being_whole(self, changes: dict[str, object]) -> None:
        life = a_life()
        say(life, "a", held("a", "abc"))
        say(life, "b", held("b", "abc"))
        say(life, "c", held("c", "abc", **changes))  # type: ignore[arg-type]
        assert recovery.consider(life, OVER - 1) == Wait()
        verdict = recovery.consider(life, OVER)
        assert isinstance(verdict, Adopt)
        assert verdict.missing

    def test_without_live_workers_it_may_not_be_the_newest_and_waits(self) -> None:
        """All of round 5 lost contact, and round 6 may run elsewhere."""
        life = a_life()
        for node in "ab":
            say(life, node, held(node, "ab"), AgentPhase.READY)
        assert recovery.consider(life, OVER - 1) == Wait()
        assert adopted(life, OVER) == (5, ["a", "b"])
        for node in "cd":
            say(life, node, held(node, "cd", 6))
        assert adopted(life, NOW) == (6, ["c", "d"])

    @pytest.mark.parametrize("phase", [AgentPhase.RUNNING, AgentPhase.STOPPING])
    def test_one_with_live_workers_proves_the_round_to_be_the_newest(self, phase: AgentPhase) -> None:
        life = a_life()
        say(life, "a", held("a", "ab"), AgentPhase.FAILED)
        say(life, "b", held("b", "ab"), phase)
        assert adopted(life) == (5, ["a", "b"])

    def test_of_two_the_higher_goes_on(self) -> None:
        life = a_life()
        for nodes, number in (("ab", 5), ("cd", 6)):
            for node in nodes:
                say(life, node, held(node, nodes, number))
        assert adopted(life) == (6, ["c", "d"])

    def test_a_success_on_record_stands_for_its_node(self) -> None:
        life = a_life(current=on_record("abc", 5, succeeded="b"))
        recovery.forget(life, "b")
        for node in "ac":
            say(life, node, held(node, "abc"))
        assert adopted(life) == (5, ["a", "b", "c"])


class TestInPart:
    def test_the_newest_is_adopted_as_far_as_it_is_known(self) -> None:
        life = a_life()
        say(life, "a", held("a", "ab", 4))
        say(life, "b", held("b", "ab", 4))
        say(life, "d", held("d", "acd", 5))
        say(life, "a", held("a", "acd", 5))
        assert adopted(life, OVER) == (5, ["a", "d"])
        verdict = recovery.consider(life, OVER)
        assert isinstance(verdict, Adopt)
        assert "2 of 3 nodes of round 5" in verdict.missing

    def test_the_offer_is_known_by_its_port_if_its_node_never_saw_the_round(self) -> None:
        life = a_life()
        say(life, "b", held("b", "ab"))
        say(life, "a", None, AgentPhase.READY, offer=EndpointOffer(9, ENDPOINT))
        verdict = recovery.consider(life, OVER)
        assert isinstance(verdict, Adopt)
        assert (verdict.record.offer_node, verdict.record.offer_id) == ("a", 9)

    def test_what_nobody_claims_is_abandoned(self) -> None:
        life = a_life()
        say(life, "a", None, AgentPhase.READY)
        assert recovery.consider(life, OVER - 1) == Wait()
        assert recovery.consider(life, OVER) == Abandon()

    def test_a_round_on_record_that_nobody_claims_is_ended_by_the_book(self) -> None:
        life = a_life(current=on_record("ab", 5))
        verdict = recovery.consider(life, OVER)
        assert isinstance(verdict, Adopt)
        assert verdict.record.round == 5
        assert verdict.missing

    @pytest.mark.parametrize(("claimed", "ended", "found"), [(4, False, 5), (4, True, None), (5, True, None)])
    def test_what_the_journal_knows_to_be_over_is_never_adopted(
        self, claimed: int, ended: bool, found: int | None
    ) -> None:
        life = a_life(current=on_record("cd", 5, ended=ended))
        for node in "ab":
            say(life, node, held(node, "ab", claimed))
        assert recovery.consider(life, OVER - 1) == Wait()
        verdict = recovery.consider(life, OVER)
        assert (verdict.record.round if isinstance(verdict, Adopt) else None) == found

    def test_who_is_gone_claims_nothing(self) -> None:
        life = a_life()
        for node in "ab":
            say(life, node, held(node, "ab"))
        recovery.forget(life, "a")
        assert recovery.consider(life, NOW) == Wait()

    @pytest.mark.parametrize(
        "claim",
        [held("a", "a"), held("a", "abcd", group_world_size=5), held("a", "ab", restart_count=4)],
        ids=["too few nodes", "too many nodes", "too many restarts"],
    )
    def test_what_only_a_lost_change_can_have_allowed_is_a_claim(self, claim: Assignment) -> None:
        """Its workers may run: a round that began beside them would break C4."""
        life = a_life()
        say(life, "a", claim)
        verdict = recovery.consider(life, OVER)
        assert isinstance(verdict, Adopt)
        assert verdict.record.round == claim.round


def hello(claim: Assignment | None, seen: int) -> Hello:
    observed = Observed(round=claim.round if claim else NO_ROUND, assignment=claim)
    return Hello(
        job="job",
        node="a",
        incarnation="a1",
        attach_seq=1,
        job_spec=SPEC,
        node_spec=NodeSpec(),
        observed=observed,
        highest_version=Version(seen, 100),
    )


@pytest.mark.parametrize(
    ("claim", "seen", "began"),
    [
        (None, 3, None),
        (None, 4, RecoveryBegan(epoch=9)),
        (held("a", "ab", 6), 3, None),
        (held("a", "ab", 7), 3, RecoveryBegan(epoch=9, round=7)),
        (held("a", "ab", 6, restart_count=3), 3, RecoveryBegan(epoch=9, restart_count=3)),
        (held("a", "ab", 6, restart_count=99), 3, RecoveryBegan(epoch=9, restart_count=99)),
    ],
)
def test_it_begins_once_for_each_lost_history_and_whenever_a_number_is_news(
    claim: Assignment | None, seen: int, began: RecoveryBegan | None
) -> None:
    life = a_life(current=on_record("ab", 5, ended=True), state=JobState.GATHERING)
    facts = life.facts
    facts.recovery_epoch, facts.round_floor, facts.restart_count = 4, 6, 2
    assert recovery.beginning(facts, hello(claim, seen), epoch=9) == began
    facts.outcome = Outcome(state=JobState.FAILED, reason="R", message="")
    assert recovery.beginning(facts, hello(claim, seen), epoch=9) is None
