"""A snapshot stands for the records that led to it: what comes after leads to the same."""

from __future__ import annotations

import typing
from collections import Counter
from dataclasses import fields
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from rallypoint.model import AgentPhase, JobSpec
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.records import CoordinatorStarted, Entry, LifeRecord, Place, StateLost
from rallypoint_coordinator.core.snapshot import copy_of
from rallypoint_coordinator.core.state import Facts, Member, Round
from rallypoint_coordinator.store.snapshot_codec import decode_snapshot, encode_snapshot
from support.cluster_walk import Walk
from support.coordinator_script import Script, replayed

SPEC = JobSpec(min_nodes=1, max_nodes=2, max_restarts=1)


def continued(journal: list[Entry], cut: int) -> Cluster:
    """A cluster from a snapshot at ``cut``, as it is stored, and the records after it."""
    cluster = Cluster()
    cluster.restore(decode_snapshot(encode_snapshot(replayed(journal[:cut]).snapshot())))
    for revision, entry in enumerate(journal[cut:], cut + 1):
        cluster.apply(entry, revision)
    return cluster


def everything(cluster: Cluster) -> object:
    """All that is durable in a cluster, with the orders that equality of dicts does not compare."""
    lives = [(uid, life.facts, orders(life.facts)) for uid, life in cluster.lives.items()]
    directory = cluster._directory
    history = directory.history
    of_cluster = history.cluster_id, history.epoch, history.born_wall_ms, list(history.former), history.epochs
    return of_cluster, lives, directory._current, list(directory._decided)


def orders(facts: Facts) -> object:
    return list(facts.members), list(facts.gone_nodes), list(facts.round.places) if facts.round else []


@given(st.randoms(use_true_random=False), st.integers(1, 150), st.floats(0, 1))
@settings(max_examples=200)
def test_a_snapshot_and_the_tail_are_the_whole_journal(rng: Random, steps: int, share: float) -> None:
    journal = Walk(rng).take(steps).journal
    assert everything(continued(journal, int(share * len(journal)))) == everything(replayed(journal))


@given(st.randoms(use_true_random=False), st.integers(1, 150))
@settings(max_examples=100)
def test_what_replays_has_the_snapshot_of_what_lived(rng: Random, steps: int) -> None:
    script = Walk(rng).take(steps)
    assert everything(replayed(script.journal)) == everything(script.cluster)
    assert encode_snapshot(replayed(script.journal).snapshot()) == encode_snapshot(script.cluster.snapshot())


def test_walks_come_everywhere() -> None:
    """What the properties above are worth."""
    seen = Counter(type(entry.record).__name__ for seed in range(120) for entry in Walk(Random(seed)).take(150).journal)
    assert set(seen) == {kind.__name__ for kind in (CoordinatorStarted, StateLost, *typing.get_args(LifeRecord))}
    assert min(seen.values()) >= 10, seen


def test_what_comes_later_leaves_a_snapshot_alone() -> None:
    script = Script()
    a, b = script.running("ab", SPEC)
    snapshot = script.cluster.snapshot()
    before = encode_snapshot(snapshot)
    b.report(AgentPhase.SUCCEEDED)
    a.fail()
    b.leave()
    assert encode_snapshot(snapshot) == before
    assert encode_snapshot(script.cluster.snapshot()) != before


def test_a_copy_shares_nothing_that_changes() -> None:
    script = Script()
    script.running("ab", SPEC)
    facts = script.life.facts
    copy = copy_of(facts)
    assert copy == facts
    assert copy.round is not facts.round
    assert all(copy.members[node] is not member for node, member in facts.members.items())


def test_a_new_fact_needs_a_place_in_the_snapshot() -> None:
    """Whoever adds a field here adds it to journal.proto, to the snapshot's codec and to this list."""
    kinds = (Facts, Member, Round, Place)
    names = {kind.__name__: " ".join(field.name for field in fields(kind) if field.init) for kind in kinds}
    assert names == {
        "Facts": (
            "job uid spec created_wall_ms state state_wall_ms members gone_nodes round restart_count last_failure"
            " outcome cancelled_by directive_revision revision recovery_epoch round_floor round_changes replaced_spec"
            " labels hold"
        ),
        "Member": (
            "node incarnation lease_id spec capabilities agent_version consumed_offer_id drained_by directive_revision"
            " unkillable_pids revoked gone gone_message"
        ),
        "Round": (
            "number places world_size endpoint offer_id restart_count succeeded stop_cause stop_message"
            " stop_revision stop_epoch ended failures leaves_remains"
        ),
        "Place": "seat group_rank first_rank first_role_rank role_world_size",
    }
