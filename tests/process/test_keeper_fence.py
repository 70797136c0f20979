"""The keeper's fence, which strikes unless it is fed."""

from __future__ import annotations

import signal
from pathlib import Path

from rallypoint_agent.keeper import Gone, Spawned, WorkerExited
from support.keeper_bench import LONG, SLEEP, TREE_WORKER, Bench, boot_ns
from support.processes import wait_until


def test_the_fence_first_asks(bench: Bench, ready: Path) -> None:
    bench.shell(f"trap 'exit 6' TERM; touch {ready}; while :; do sleep 0.01; done")
    wait_until(ready.exists)
    bench.keeper.fence(term_at_ns=boot_ns(0.05), kill_at_ns=boot_ns(LONG))
    assert bench.expect(Gone) == [Gone(round=0, fenced=True)]
    assert [e.exit_code for e in bench.expect(WorkerExited)] == [6]


def test_the_fence_then_kills(bench: Bench, ready: Path) -> None:
    bench.tree(ready, "ignore-term")
    bench.keeper.fence(term_at_ns=boot_ns(0.05), kill_at_ns=boot_ns(0.1))
    assert bench.expect(Gone) == [Gone(round=0, fenced=True)]
    bench.expect_nothing_alive()
    assert [e.exit_code for e in bench.expect(WorkerExited)] == [-signal.SIGKILL]


def test_a_fence_that_is_fed_does_not_strike(bench: Bench) -> None:
    bench.spawn(SLEEP)
    bench.expect(Spawned)
    strike_at = boot_ns(1.0)
    bench.keeper.fence(term_at_ns=strike_at, kill_at_ns=strike_at)
    bench.keeper.fence(term_at_ns=boot_ns(LONG), kill_at_ns=boot_ns(LONG))
    wait_until(lambda: boot_ns() > strike_at)
    bench.stop()
    assert bench.expect(Gone) == [Gone(round=0, fenced=False)]


def test_behind_a_fence_that_struck_nothing_is_started(bench: Bench) -> None:
    bench.keeper.fence(term_at_ns=boot_ns(), kill_at_ns=boot_ns(LONG))
    bench.spawn(SLEEP, round_number=4)
    assert bench.expect(Gone) == [Gone(round=4, fenced=True)]
    bench.expect_nothing_alive()
    bench.keeper.fence(term_at_ns=boot_ns(LONG), kill_at_ns=boot_ns(LONG))
    bench.spawn(SLEEP, round_number=5)
    assert bench.expect(Spawned)[0].round == 5


def test_a_fence_that_struck_is_not_taken_back(bench: Bench, ready: Path) -> None:
    bench.spawn(SLEEP, (*TREE_WORKER, str(ready), "ignore-term"))
    wait_until(ready.exists)
    bench.keeper.fence(term_at_ns=boot_ns(), kill_at_ns=boot_ns(0.2))
    bench.expect(WorkerExited)
    bench.keeper.fence(term_at_ns=boot_ns(LONG), kill_at_ns=boot_ns(LONG))
    assert bench.expect(Gone) == [Gone(round=0, fenced=True)]


def test_the_fence_hastens_a_stop(bench: Bench, ready: Path) -> None:
    bench.tree(ready, "ignore-term")
    bench.stop(grace=LONG)
    bench.keeper.fence(term_at_ns=boot_ns(), kill_at_ns=boot_ns(0.05))
    assert bench.expect(Gone) == [Gone(round=0, fenced=True)]
