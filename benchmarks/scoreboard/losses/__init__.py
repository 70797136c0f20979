"""What a job is left with when something is lost: agents, hosts, links, the coordinator; and what it gains.

Workers are families of three processes, two workers a node; all but gloo's go without torch. Where torchrun never
recovers there is nothing to measure beside us, so the target is an absolute time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scoreboard.bench import Bench
from scoreboard.figures import RUNS, SECONDS, AllOf, AtMost, Row, Skipped
from scoreboard.losses import agents, cut_off, gloo

GLOO_S = 150
"""Of the five minutes that this suite may take: 20 recoveries at least, about 40 if nobody else uses the machine."""
NEVER = "never"
JOB_LOST = "job lost"
NO_SUCH_THING = "no such thing"


def rows(bench: Bench) -> Iterator[Row | Skipped]:
    yield from _of_agents(bench)
    yield from _of_a_coordinator(bench)
    yield from _of_links(bench)
    yield from _of_gloo(bench)


def _of_agents(bench: Bench) -> Iterator[Row]:
    seen = agents.lose_and_gain(bench.new_folder("agents"), bench.pick(7, 2))
    yield Row("agent SIGKILL to the survivors' new round", SECONDS, seen.survivors, (AtMost(0.8),), NEVER)
    yield Row("agent SIGKILL to its tree gone", SECONDS, seen.trees, (AtMost(0.02),), NEVER)
    yield Row("rank 0's agent SIGKILL to the new round", SECONDS, seen.survivors_of_rank_0, (AtMost(1.5),), JOB_LOST)
    yield Row("third agent attached until all three run", SECONDS, seen.third, (AtMost(0.5),), NEVER)
    spared = agents.lose_beside_a_spare(bench.new_folder("spare"), bench.pick(7, 2))
    yield Row("agent SIGKILL beside a hot spare, same world", SECONDS, spared, (AtMost(1.5),), NO_SUCH_THING)


def _of_a_coordinator(bench: Bench) -> Iterator[Row]:
    count = bench.pick(10, 2)
    outlived = agents.lose_coordinators(bench.new_folder("coordinator"), count)
    figure = "coordinator SIGKILL: no worker restarts"
    yield Row(figure, RUNS, [*map(float, outlived)], (AllOf(count),), NO_SUCH_THING)


def _of_links(bench: Bench) -> Iterator[Row | Skipped]:
    figure = f"node cut off to the survivors' new round, lease {cut_off.LEASE_S} s"
    if why_not := cut_off.why_impossible():
        yield Skipped(figure, f"there can be no network namespaces here: {why_not}")
        return
    took = cut_off.cut_off(bench.new_folder("cut-off"), bench.pick(6, 1))
    yield Row(figure, SECONDS, took, (AtMost(cut_off.LEASE_S + 2, worst=True),), NEVER)


def _of_gloo(bench: Bench) -> Iterator[Row]:
    def new_folder() -> Path:
        return bench.new_folder("gloo")

    ours = gloo.recoveries(gloo.rallypoint, new_folder, bench.pick(20, 2), within_s=bench.pick(GLOO_S, 0))
    theirs = [] if bench.quick else [*map(float, gloo.recoveries(gloo.torchrun, new_folder, 3))]
    figure = "gloo worker SIGKILL: all back after one restart"
    yield Row(figure, RUNS, [*map(float, ours)], (AllOf(len(ours)),), theirs or "not run in a quick run")
