"""Simulated fleets: what they count is the same in each run, and grows with the fleet in step."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from simulated_fleet.fleet import Fleet
from simulated_fleet.holdings import deep_size, holdings_of
from simulated_fleet.meter import Phase
from simulated_fleet.timeline import Timeline

PHASES = (
    "all join",
    "a minute passes",
    "a worker fails",
    "a node is lost",
    "a node joins",
    "a node leaves",
    "coordinator restarts",
    "all succeed",
)
RE_FORMATIONS = ("a worker fails", "a node is lost", "a node joins", "a node leaves")


@cache
def phases_of(jobs: int, nodes: int) -> dict[str, Phase]:
    return {phase.name: phase for phase in Fleet(jobs, nodes).story()}


def counts_of(phase: Phase) -> dict[str, Counter[str]]:
    """Without acknowledgements: how many come within a second of the last one is a matter of when the beats fall."""
    down = Counter({kind: number for kind, number in phase.news.down.number.items() if kind != "Ack"})
    return {"up": phase.news.up.number, "down": down, "records": phase.records.number}


def test_two_runs_count_the_same_to_the_byte() -> None:
    first, second = phases_of(1, 50), {phase.name: phase for phase in Fleet(1, 50).story()}
    assert tuple(first) == tuple(second) == PHASES
    for name, phase in first.items():
        other = second[name]
        assert counts_of(phase) == counts_of(other)
        assert (phase.news.up, phase.news.down, phase.records) == (other.news.up, other.news.down, other.records)
        assert phase.renewal.up == other.renewal.up
        assert phase.news.events == other.news.events
        assert (phase.batches, phase.largest_batch) == (other.batches, other.largest_batch)


@pytest.mark.parametrize("name", PHASES)
def test_each_agent_more_costs_the_same(name: str) -> None:
    small, medium, large = (counts_of(phases_of(1, nodes)[name]) for nodes in (20, 50, 80))
    for what, counts in medium.items():
        for kind, number in counts.items():
            assert number - small[what][kind] == large[what][kind] - number, f"{what}: {kind}"


@pytest.mark.parametrize("name", PHASES)
def test_jobs_cost_one_another_nothing(name: str) -> None:
    one, three = (counts_of(phases_of(jobs, 20)[name]) for jobs in (1, 3))
    started = Counter(CoordinatorStarted=1) if one["records"]["CoordinatorStarted"] else Counter()
    for what in ("up", "down"):
        assert three[what] == Counter({kind: 3 * number for kind, number in one[what].items()})
    records = {kind: 3 * number for kind, number in (one["records"] - started).items()}
    assert three["records"] - started == Counter(records)


@pytest.mark.parametrize("name", RE_FORMATIONS)
def test_a_re_formation_writes_as_many_records_whatever_the_size(name: str) -> None:
    assert counts_of(phases_of(1, 20)[name])["records"] == counts_of(phases_of(1, 80)[name])["records"]


def test_who_has_nothing_new_to_say_costs_no_record_and_is_heard_as_often_as_it_was_told_to_speak() -> None:
    quiet = phases_of(1, 50)["a minute passes"]
    assert quiet.renewal.up.number == Counter(Heartbeat=50 * 12)
    assert not any(counts_of(quiet).values())


def test_what_is_held_of_a_fleet_is_measured_whole() -> None:
    fleet = Fleet(1, 20)
    next(fleet.story())
    holdings = holdings_of(fleet.coordinator, fleet.agents[0].job)
    assert holdings.core_bytes > holdings.snapshot_bytes > holdings.job_bytes > 0
    assert holdings.page_bytes > 20 * len(fleet.agents[0].node)


def test_what_is_shared_is_counted_once() -> None:
    shared = "x" * 1_000
    assert deep_size([shared, shared]) < deep_size([shared]) + 100


def test_time_passes_from_one_action_to_the_next() -> None:
    timeline, done = Timeline(), list[tuple[str, int]]()

    def do(name: str) -> None:
        done.append((name, timeline.now_ms))

    timeline.at(20, lambda: do("late"))
    timeline.at(10, lambda: timeline.after(0, lambda: do("same time, asked later")))
    timeline.at(10, lambda: do("early"))
    timeline.run_for(15)
    assert done == [("early", 10), ("same time, asked later", 10)]
    assert timeline.now_ms == 15
