"""The keeper starts workers: all or none, each in a world of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from rallypoint_agent.keeper import Gone, Spawned, SpawnFailed, WorkerCommand, WorkerExited
from support.keeper_bench import SLEEP, Bench, boot_ns
from support.processes import MARK_VARIABLE, pids_with_mark, wait_until


def test_exit_codes_and_signals_are_reported(bench: Bench) -> None:
    before, before_wall = boot_ns(), time.time()
    bench.shell("exit 0", "exit 3", "kill -KILL $$", "kill -SEGV $$", "exit 255")
    exits = bench.expect(WorkerExited, 5)
    [spawned] = bench.expect(Spawned)
    assert {e.local_rank: e.exit_code for e in exits} == {0: 0, 1: 3, 2: -9, 3: -11, 4: 255}
    assert {e.local_rank: e.pid for e in exits} == spawned.pids
    assert all(before <= e.at_boot_ns <= boot_ns() for e in exits)
    assert all(before_wall - 1 <= e.wall_time <= time.time() + 1 for e in exits)


def test_spawned_comes_before_the_ends_of_its_workers(bench: Bench) -> None:
    for number in range(10):
        bench.shell(*["exit 0"] * 4, round_number=number)
        bench.expect(WorkerExited, 4 * (number + 1))
        bench.stop()
        bench.expect(Gone, number + 1)
    one_round = [Spawned, *[WorkerExited] * 4, Gone]
    assert [type(event) for event in bench.seen] == one_round * 10


def test_a_worker_gets_its_environment_streams_and_directory(bench: Bench, tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    out.write_text("kept\n")
    script = 'echo "$GREETING from $PWD"; echo "$HOME" >&2'
    command = bench.command(
        4,
        ("sh", "-c", script),
        env={"GREETING": "gr\u00fc\u00df dich \udcff", "HOME": ""},
        stdout=str(out),
        stderr=str(err),
        cwd=str(tmp_path),
    )
    bench.keeper.spawn(0, [command])
    [exited] = bench.expect(WorkerExited)
    assert (exited.local_rank, exited.exit_code) == (4, 0)
    assert out.read_bytes() == b"kept\n" + os.fsencode(f"gr\u00fc\u00df dich \udcff from {tmp_path}\n")
    assert err.read_text() == "\n"


def test_a_worker_runs_on_the_cpus_it_is_given_and_the_others_where_we_may(bench: Bench, tmp_path: Path) -> None:
    ours = os.sched_getaffinity(0)
    show = (sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))")
    bound = bench.command(0, show, stdout=str(tmp_path / "0"), cpus=(max(ours),))
    bench.keeper.spawn(0, [bound, bench.command(1, show, stdout=str(tmp_path / "1"))])
    assert [exited.exit_code for exited in bench.expect(WorkerExited, 2)] == [0, 0]
    assert (tmp_path / "0").read_text() == f"{[max(ours)]}\n"
    assert (tmp_path / "1").read_text() == f"{sorted(ours)}\n"


def test_cpus_that_are_not_there_are_told(bench: Bench) -> None:
    bench.keeper.spawn(0, [bench.command(0, SLEEP, cpus=(1000,))])
    [failed] = bench.expect(SpawnFailed)
    assert failed.error == "cannot run on CPUs [1000]: Invalid argument"


def test_the_environment_is_the_given_one_and_no_more(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    env = {MARK_VARIABLE: bench.mark}
    argv = ("/usr/bin/env",)
    bench.keeper.spawn(0, [WorkerCommand(local_rank=0, argv=argv, env=env, stdout=str(out))])
    bench.expect(WorkerExited)
    assert out.read_text() == f"{MARK_VARIABLE}={bench.mark}\n"


def test_a_worker_leads_a_session_and_has_no_descriptor_of_the_keeper(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    look = "import os; print(os.getpgid(0), os.getsid(0), *os.listdir('/proc/self/fd'))"
    argv = (sys.executable, "-S", "-I", "-c", look)
    bench.keeper.spawn(0, [bench.command(0, argv, stdout=str(out))])
    [exited] = bench.expect(WorkerExited)
    group, session, *descriptors = out.read_text().split()
    assert {int(group), int(session)} == {exited.pid}
    assert descriptors == ["0", "1", "2", "3"]  # The last is that of the listing.


def test_signal_dispositions_and_mask_are_default(tmp_path: Path) -> None:
    """Even if the agent's own are not."""
    out = tmp_path / "out"
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGCHLD})
    ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        bench = Bench()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGUSR2, ignored)
    bench.keeper.spawn(0, [bench.command(0, ("cat", "/proc/self/status"), stdout=str(out))])
    bench.expect(WorkerExited)
    bench.keeper.close()
    fields = dict(line.split(":\t", 1) for line in out.read_text().splitlines())
    ours = sum(1 << (number - 1) for number in signal.valid_signals())  # the C library keeps 32 and 33 to itself
    assert {int(fields[name], 16) & ours for name in ("SigBlk", "SigIgn", "SigCgt")} == {0}


def test_big_environments_pass(bench: Bench) -> None:
    big = {f"BIG_{n}": chr(ord("a") + n) * 100_000 for n in range(5)}
    check = 'test "${#BIG_0}${#BIG_4}" = 100000100000 && exec sleep 1000'
    bench.keeper.spawn(0, [bench.command(rank, ("sh", "-c", check), env=big) for rank in range(8)])
    [spawned] = bench.expect(Spawned)
    wait_until(lambda: all(comm(pid) == "sleep" for pid in spawned.pids.values()))
    bench.stop()
    bench.expect(Gone)


def test_a_missing_program_leaves_nothing_alive(bench: Bench) -> None:
    bench.spawn(SLEEP, SLEEP, ("no-such-program-anywhere",), SLEEP)
    [failed] = bench.expect(SpawnFailed)
    bench.expect_nothing_alive()
    assert (failed.round, failed.local_rank) == (0, 2)
    assert failed.error == "cannot run 'no-such-program-anywhere': No such file or directory"
    bench.spawn(SLEEP, round_number=1)
    bench.expect(Spawned)
    assert [type(event) for event in bench.seen] == [SpawnFailed, Spawned]


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("cwd", "/no/such/folder", "cannot change to '/no/such/folder': No such file or directory"),
        ("stdout", "/no/such/out", "cannot open '/no/such/out': No such file or directory"),
        ("stderr", "/proc", "cannot open '/proc': Is a directory"),
        ("argv", ("/etc/passwd",), "cannot run '/etc/passwd': Permission denied"),
        ("argv", ("true", "\0"), "cannot run 'true': embedded null byte"),
        ("argv", ("true", "x" * 2_000_000), "cannot run 'true': Argument list too long"),
        ("env", {"A=B": "C"}, "cannot run 'true': illegal environment variable name"),
    ],
)
def test_what_cannot_start_says_why(bench: Bench, field: str, value: object, error: str) -> None:
    fields: dict[str, object] = {"argv": ("true",), "env": bench.env} | {field: value}
    bench.keeper.spawn(3, [WorkerCommand(local_rank=1, **fields)])  # type: ignore[arg-type]
    assert bench.expect(SpawnFailed) == [SpawnFailed(round=3, local_rank=1, error=error)]


def test_a_worker_that_hangs_before_its_program_holds_nothing_up(bench: Bench, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # Opening it waits for a reader that never comes.
    commands = [bench.command(0, SLEEP), bench.command(1, SLEEP, stdout=str(pipe))]
    bench.keeper.spawn(0, commands)
    wait_until(lambda: pids_with_mark(bench.mark), message="the other worker runs")
    bench.stop()
    bench.expect(Gone)
    assert bench.seen == [Gone(round=0, fenced=False)]


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
