"""The keeper ends workers, and everything they started."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

import pytest

from rallypoint_agent.keeper import Answered, Gone, KeeperDied, Spawned, WorkerExited
from support.keeper_bench import LONG, SLEEP, Bench
from support.processes import is_alive, pids_with_mark, wait_until

PTRACE_SEIZE = 0x4206


def test_stop_without_workers_is_answered_at_once(bench: Bench) -> None:
    bench.stop()
    assert bench.expect(Gone) == [Gone(round=-1, fenced=False)]


def test_stop_leaves_the_workers_time_to_end_well(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    saving = "trap 'sleep 0.1; echo saved; exit 7' USR1; echo up; while :; do sleep 0.01; done"
    bench.keeper.spawn(0, [bench.command(0, ("sh", "-c", saving), stdout=str(out))])
    wait_until(lambda: out.exists() and out.read_text() == "up\n")
    bench.stop(signal.SIGUSR1)
    assert bench.expect(Gone) == [Gone(round=0, fenced=False)]
    assert [e.exit_code for e in bench.expect(WorkerExited)] == [7]
    assert out.read_text() == "up\nsaved\n"


def test_the_death_signal_goes_to_the_whole_process_group(bench: Bench, ready: Path) -> None:
    child = f"trap 'exit 0' TERM; touch {ready}; while :; do sleep 0.01; done"
    bench.shell(f"trap 'wait; exit 5' TERM; ({child}) & wait")
    wait_until(ready.exists)
    bench.stop()
    bench.expect(Gone)
    assert [e.exit_code for e in bench.expect(WorkerExited)] == [5]


def test_after_the_grace_period_everything_is_killed(bench: Bench, ready: Path) -> None:
    bench.tree(ready, "ignore-term")
    bench.stop(grace=0.05)
    bench.expect(Gone)
    bench.expect_nothing_alive()
    assert [e.exit_code for e in bench.expect(WorkerExited)] == [-signal.SIGKILL]


def test_what_left_the_session_or_was_orphaned_is_killed(bench: Bench, ready: Path) -> None:
    bench.tree(ready)
    assert len(pids_with_mark(bench.mark)) == 3
    bench.stop()
    bench.expect(Gone)
    bench.expect_nothing_alive()
    assert [e.exit_code for e in bench.expect(WorkerExited)] == [-signal.SIGTERM]


def test_what_a_worker_leaves_behind_lives_until_the_stop(bench: Bench, ready: Path) -> None:
    bench.tree(ready, "leave")
    bench.expect(WorkerExited)
    assert len(pids_with_mark(bench.mark)) == 2
    assert not any(isinstance(event, Gone) for event in bench.seen)
    bench.stop()
    bench.expect(Gone)
    bench.expect_nothing_alive()


def test_a_deep_tree_of_sessions_is_killed(bench: Bench, ready: Path) -> None:
    nested = f"touch {ready}; exec sleep 1000"
    for _ in range(6):
        nested = f"setsid sh -c {quote(nested)} & wait"
    bench.shell(nested)
    wait_until(ready.exists)
    bench.stop(signal.SIGKILL)
    bench.expect(Gone)
    bench.expect_nothing_alive()


def test_a_stopped_worker_is_killed(bench: Bench) -> None:
    bench.shell("kill -STOP $$; sleep 1000")
    [spawned] = bench.expect(Spawned)
    wait_until(lambda: state(spawned.pids[0]) == "T")
    bench.stop(grace=0.05)
    bench.expect(Gone)


@pytest.mark.parametrize(("death_signal", "grace"), [(signal.SIGTERM, 0.0), (signal.SIGKILL, LONG)])
def test_a_sooner_stop_overrides(bench: Bench, ready: Path, death_signal: int, grace: float) -> None:
    bench.tree(ready, "ignore-term")
    bench.stop(grace=LONG)
    bench.stop(death_signal, grace)
    bench.expect(Gone)
    bench.expect_nothing_alive()


def test_a_later_stop_prolongs_nothing(bench: Bench, ready: Path) -> None:
    bench.tree(ready, "ignore-term")
    bench.stop(grace=0.1)
    bench.stop(grace=LONG)
    bench.expect(Gone)
    assert sum(isinstance(event, Gone) for event in bench.seen) == 1


def test_what_does_not_go_away_holds_gone_back_but_not_the_keeper(bench: Bench) -> None:
    """A traced process stays behind as a zombie for its tracer, as one stuck in the kernel would."""
    bench.spawn(SLEEP, SLEEP)
    [spawned] = bench.expect(Spawned)
    trace(spawned.pids[0])
    bench.stop(signal.SIGKILL)
    bench.expect(WorkerExited)
    bench.stop()
    bench.keeper.ask()
    assert bench.expect(Answered) == [Answered(0, killing=True, pids=(spawned.pids[0],))]
    assert sum(isinstance(event, Gone) for event in bench.seen + bench.keeper.wait(0.2)) == 0
    os.waitpid(spawned.pids[0], 0)
    bench.expect(Gone)


def test_every_question_is_answered(bench: Bench) -> None:
    bench.keeper.ask()
    bench.spawn(SLEEP)
    bench.expect(Spawned)
    bench.keeper.ask()
    assert bench.expect(Answered, 2) == [Answered(-1, killing=False), Answered(0, killing=False)]


def test_a_keeper_that_is_of_no_use_can_be_killed(bench: Bench) -> None:
    bench.spawn(SLEEP)
    bench.expect(Spawned)
    os.kill(bench.keeper.pid, signal.SIGSTOP)
    bench.keeper.kill()
    assert bench.expect(KeeperDied) == [KeeperDied(-signal.SIGKILL)]


def test_every_stop_is_answered_even_one_that_overtakes_the_start(bench: Bench) -> None:
    for number in range(20):
        bench.spawn(*[SLEEP] * 3, round_number=number)
        bench.stop()
        assert bench.expect(Gone, number + 1)[-1] == Gone(round=number, fenced=False)
        bench.expect_nothing_alive()


def test_orphans_that_end_are_reaped(bench: Bench) -> None:
    bench.shell("for i in 1 2 3; do (setsid sh -c 'exit 0' &); done; exec sleep 1000")
    [spawned] = bench.expect(Spawned)
    wait_until(lambda: comm(spawned.pids[0]) == "sleep")
    listing = Path(f"/proc/{bench.keeper.pid}/task/{bench.keeper.pid}/children")
    wait_until(lambda: listing.read_text().split() == [str(spawned.pids[0])])


def trace(pid: int) -> None:
    """Become the tracer of a process, without stopping it."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.ptrace(PTRACE_SEIZE, pid, zero, zero) < 0:
        pytest.skip(f"tracing is forbidden here: {os.strerror(ctypes.get_errno())}")


def quote(script: str) -> str:
    return "'" + script.replace("'", "'\\''") + "'"


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_one_worker_can_be_killed_alone(bench: Bench) -> None:
    bench.shell("sleep 1000 & wait", "sleep 1000")
    [spawned] = bench.expect(Spawned)
    wait_until(lambda: len(pids_with_mark(bench.mark)) > 2)
    family = pids_with_mark(bench.mark) - {bench.keeper.pid, spawned.pids[0]}
    bench.keeper.kill_worker(1, 0, signal.SIGKILL)  # of another round: nobody
    bench.keeper.kill_worker(0, 7, signal.SIGKILL)
    bench.keeper.kill_worker(0, 0, signal.SIGTERM)
    [exited] = bench.expect(WorkerExited)
    assert (exited.local_rank, exited.exit_code) == (0, -signal.SIGTERM)
    bench.keeper.kill_worker(0, 0, signal.SIGKILL)
    assert all(is_alive(pid) for pid in family)
    bench.stop()
    bench.expect(Gone)
    bench.keeper.kill_worker(0, 1, signal.SIGKILL)
