"""C1: which history an agent comes from, by what it says that it has seen."""

from __future__ import annotations

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint.model import NO_VERSION, Hello, JobSpec, JobState, NodeSpec, Outcome, Version
from rallypoint_coordinator.core.events import Stamp
from rallypoint_coordinator.core.history import EPOCH_LEAP_MAX, EPOCHS_MAX, FORMER_CLUSTERS_MAX, History, Known, Lost
from rallypoint_coordinator.core.records import CoordinatorStarted, StateLost
from rallypoint_coordinator.core.state import Facts

SPEC = JobSpec(lease_ttl_ms=30_000, coordinator_outage_ms=60_000)
WINDOW_MS = 60_000 + 30_000 + 30 + 1_000
BORN_MS = 1_700_000_000_000
EPOCH, BEGAN, NOW = 3, 40, 50


def history() -> History:
    """Of the cluster "ours", in its third epoch, which began with revision 40."""
    made = History()
    for epoch, revision in ((1, 1), (2, 20), (EPOCH, BEGAN)):
        born_wall_ms = BORN_MS if epoch == 1 else 0
        made.started(CoordinatorStarted(cluster_id="ours", epoch=epoch, born_wall_ms=born_wall_ms), revision)
    return made


def hello(cluster_id: str = "ours", seen: Version = NO_VERSION) -> Hello:
    return Hello(
        job="job",
        node="a",
        incarnation="a1",
        attach_seq=1,
        job_spec=SPEC,
        node_spec=NodeSpec(),
        cluster_id=cluster_id,
        highest_version=seen,
    )


def stamp(age_ms: int = 0) -> Stamp:
    return Stamp(at_ms=0, wall_ms=BORN_MS + age_ms, revision=NOW)


@pytest.mark.parametrize(
    "seen",
    [NO_VERSION, Version(1, 19), Version(2, 39), Version(3, 40), Version(3, 50)],
)
@pytest.mark.parametrize("cluster_id", ["", "ours"])
def test_what_the_journal_knows(cluster_id: str, seen: Version) -> None:
    assert history().judge(hello(cluster_id, seen), stamp()) == Known()


@pytest.mark.parametrize(
    ("seen", "epoch"),
    [
        (Version(3, 51), 4),
        (Version(4, 0), 5),
        (Version(9, 2), 10),
        (Version(2, 40), None),
        (Version(1, 99), None),
        (Version(1, 20), None),
    ],
)
def test_what_the_journal_has_forgotten(seen: Version, epoch: int | None) -> None:
    """What was shown in an epoch is older than the next one. The epoch is raised only where it has to be."""
    record = StateLost(former_cluster_id="", epoch=epoch) if epoch is not None else None
    assert history().judge(hello("ours", seen), stamp()) == Lost(record)


@pytest.mark.parametrize("outcome", [None, Outcome(state=JobState.FAILED, reason="R", message="")])
@pytest.mark.parametrize(
    ("seen", "known"), [(Version(3, 44), True), (Version(3, 45), False), (Version(2, 39), True)], ids=str
)
def test_what_an_agents_life_never_told_it(seen: Version, known: bool, outcome: Outcome | None) -> None:
    """The lost epoch may have had this one's number, and have been no longer than it: its own life is."""
    named = Facts(job="job", uid="uid", spec=SPEC, created_wall_ms=0, revision=44, outcome=outcome)
    expected = Known() if known else Lost(StateLost(former_cluster_id="", epoch=EPOCH + 1))
    assert history().judge(hello("ours", seen), stamp(), named) == expected


def test_epochs_in_which_nothing_was_decided_are_not_told_apart() -> None:
    ours = history()
    for number in range(1, 1_000):
        ours.started(CoordinatorStarted(cluster_id="ours", epoch=EPOCH + number, born_wall_ms=0), NOW + number)
    assert ours.epochs == [(1, 1, 1), (2, 20, 20), (EPOCH, BEGAN, BEGAN), (EPOCH + 999, NOW + 1, NOW + 999)]
    assert ours.judge(hello(seen=Version(EPOCH, NOW)), stamp()) == Known()
    assert ours.judge(hello(seen=Version(EPOCH, NOW + 1)), stamp()) == Lost(None)


def test_how_many_epochs_are_told_apart_is_bounded_and_no_loss_is_missed() -> None:
    ours = History()
    for epoch in range(1, 2 * EPOCHS_MAX + 1):
        ours.started(CoordinatorStarted(cluster_id="ours", epoch=epoch, born_wall_ms=0), 10 * epoch)
    now = Stamp(at_ms=0, wall_ms=BORN_MS, revision=10_000)
    assert len(ours.epochs) == EPOCHS_MAX
    assert all(ours.judge(hello(seen=Version(epoch, 10 * epoch + 10)), now) == Lost(None) for epoch in range(1, 128))
    assert ours.judge(hello(seen=Version(100, 1_009)), now) == Known()


def test_the_raised_epoch_is_above_all_that_was_seen_and_ends_nothing_of_this_start() -> None:
    ours, ahead = history(), hello("ours", Version(7, 400))
    verdict = ours.judge(ahead, stamp())
    assert isinstance(verdict, Lost)
    assert verdict.record is not None
    ours.lost(verdict.record, NOW + 1)
    assert ours.epoch == 8
    assert ours.judge(hello("ours", Version(3, NOW)), stamp()) == Known(), "it was told so in this very start"
    assert ours.judge(ahead, stamp()) == Lost(None), "it is lost still, and there is nothing more to decide"
    assert ours.judge(hello("ours", Version(5, 300)), stamp()) == Lost(None)


@pytest.mark.parametrize("seen", [NO_VERSION, Version(2, 7), Version(3, 1), Version(5, 900)])
def test_a_young_cluster_answers_for_the_one_in_whose_place_it_is(seen: Version) -> None:
    ours, theirs = history(), hello("theirs", seen)
    verdict = ours.judge(theirs, stamp(WINDOW_MS))
    epoch = max(EPOCH, seen.epoch + 1)
    assert verdict == Lost(StateLost(former_cluster_id="theirs", epoch=epoch))
    ours.lost(StateLost(former_cluster_id="theirs", epoch=epoch), NOW + 1)
    assert ours.judge(theirs, stamp(WINDOW_MS * 100)) == Lost(None), "what it answers for it answers for always"


def test_an_older_cluster_answers_for_no_other() -> None:
    verdict = history().judge(hello("theirs"), stamp(WINDOW_MS + 1))
    assert isinstance(verdict, Refusal)
    assert verdict.reason is Reason.WRONG_CLUSTER


def test_how_many_it_answers_for_is_bounded() -> None:
    ours = history()
    for number in range(FORMER_CLUSTERS_MAX):
        ours.lost(StateLost(former_cluster_id=f"former-{number}", epoch=EPOCH), NOW)
    assert isinstance(ours.judge(hello("theirs"), stamp()), Refusal)
    assert ours.judge(hello("former-0"), stamp()) == Lost(None)


@pytest.mark.parametrize(("leap", "reason"), [("ours", Reason.JOURNAL_BEHIND), ("theirs", Reason.WRONG_CLUSTER)])
def test_no_agent_can_push_the_epoch_out_of_reach(leap: str, reason: Reason) -> None:
    most = Version(EPOCH + EPOCH_LEAP_MAX, 0)
    assert isinstance(history().judge(hello(leap, most), stamp()), Lost)
    verdict = history().judge(hello(leap, Version(most.epoch + 1, 0)), stamp())
    assert isinstance(verdict, Refusal)
    assert verdict.reason is reason
