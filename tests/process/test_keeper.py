"""The keeper with real processes, its agent being the test itself."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from rallypoint_agent.keeper import (
    Answered,
    Gone,
    Keeper,
    KeeperDied,
    KeeperError,
    KeeperEvent,
    KeeperMisuseError,
    Spawned,
    SpawnFailed,
    WorkerCommand,
    WorkerExited,
    framing,
    process_tree,
)
from support.processes import MARK_VARIABLE, is_alive, new_mark, pids_with_mark, wait_until

SLEEP = ("sleep", "1000")
TREE_WORKER = (sys.executable, "-S", "-I", str(Path(__file__).with_name("tree_worker.py")))
LONG = 1000.0
PTRACE_SEIZE = 0x4206

E = TypeVar("E")


class Bench:
    """A keeper and the mark of everything it starts."""

    def __init__(self) -> None:
        self.mark = new_mark()
        self.env = dict(os.environ) | {MARK_VARIABLE: self.mark}
        self.keeper = Keeper.start()
        self.seen: list[KeeperEvent] = []

    def command(
        self,
        local_rank: int,
        argv: Sequence[str],
        *,
        env: dict[str, str] | None = None,
        stdout: str | None = None,
        stderr: str | None = None,
        cwd: str | None = None,
    ) -> WorkerCommand:
        return WorkerCommand(
            local_rank=local_rank,
            argv=tuple(argv),
            env=self.env | (env or {}),
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
        )

    def spawn(self, *argvs: Sequence[str], round_number: int = 0) -> None:
        commands = [self.command(rank, argv) for rank, argv in enumerate(argvs)]
        self.keeper.spawn(round_number, commands)

    def shell(self, *scripts: str, round_number: int = 0) -> None:
        self.spawn(*(("sh", "-c", script) for script in scripts), round_number=round_number)

    def tree(self, ready: Path, *options: str) -> None:
        """Spawn one worker with a family, and wait until all of it runs."""
        self.spawn((*TREE_WORKER, str(ready), *options))
        wait_until(ready.exists, message="the family is complete")

    def expect(self, kind: type[E], count: int = 1) -> list[E]:
        """Wait for so many events of a kind, in this test so far."""

        def found() -> list[E]:
            self.seen += self.keeper.wait(0.05)
            return [event for event in self.seen if isinstance(event, kind)]

        wait_until(lambda: len(found()) >= count, message=f"{count} x {kind.__name__}")
        return found()

    def stop(self, death_signal: int = signal.SIGTERM, grace: float = LONG) -> None:
        self.keeper.stop(death_signal=death_signal, grace=grace)

    def expect_nothing_alive(self) -> None:
        assert pids_with_mark(self.mark) == set()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    try:
        yield bench
    finally:
        bench.keeper.close()
        bench.expect_nothing_alive()
        assert not is_alive(bench.keeper.pid)


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    return tmp_path / "ready"


def boot_ns(after: float = 0.0) -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(after * 1e9)


# Spawning


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


# Stopping


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
    assert bench.expect(Answered) == [Answered(0, killing=True)]
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


# The fence


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


@pytest.mark.parametrize("disarm", [False, True])
def test_a_fence_that_is_fed_or_disarmed_does_not_strike(bench: Bench, disarm: bool) -> None:
    bench.spawn(SLEEP)
    bench.expect(Spawned)
    strike_at = boot_ns(1.0)
    bench.keeper.fence(term_at_ns=strike_at, kill_at_ns=strike_at)
    if disarm:
        bench.keeper.disarm()
    else:
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
    bench.keeper.disarm()
    assert bench.expect(Gone) == [Gone(round=0, fenced=True)]


def test_the_fence_hastens_a_stop(bench: Bench, ready: Path) -> None:
    bench.tree(ready, "ignore-term")
    bench.stop(grace=LONG)
    bench.keeper.fence(term_at_ns=boot_ns(), kill_at_ns=boot_ns(0.05))
    assert bench.expect(Gone) == [Gone(round=0, fenced=True)]


# The two ends of the socket


def test_an_agent_that_does_not_read_holds_nothing_up(bench: Bench) -> None:
    stop = framing.encode({"do": "stop", "signal": 15, "grace_ns": 0})
    bench.keeper._channel.setblocking(True)
    bench.keeper._channel.sendall(stop * 15_000)
    bench.keeper._channel.setblocking(False)
    bench.spawn(SLEEP)
    wait_until(lambda: pids_with_mark(bench.mark), message="it is spawned, though nobody reads")
    bench.keeper.fence(term_at_ns=boot_ns(), kill_at_ns=boot_ns())
    wait_until(lambda: not pids_with_mark(bench.mark), message="it is fenced, though nobody reads")
    bench.expect(Gone, 15_001)
    assert bench.seen[:15_000] == [Gone(round=-1, fenced=False)] * 15_000
    assert [type(event) for event in bench.seen[15_000:]] == [Spawned, WorkerExited, Gone]


def test_more_commands_than_either_side_buffers(bench: Bench) -> None:
    for _ in range(60_000):
        bench.stop()
    bench.expect(Gone, 60_000)


def test_events_read_while_sending_are_not_slept_through(bench: Bench) -> None:
    """The socket may be empty by then: the descriptor must be readable all the same."""
    bench.stop()
    wait_until(lambda: is_readable(bench.keeper.fileno()))
    bench.keeper._receive()
    bench.keeper._ring()
    assert is_readable(bench.keeper.fileno())
    assert len(bench.keeper.events()) == 1
    assert not is_readable(bench.keeper.fileno())
    assert bench.keeper.wait(0.0) == []


def test_a_keeper_that_takes_no_commands_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rallypoint_agent.keeper.client._SEND_TIMEOUT_SECONDS", 0.1)
    os.kill(bench.keeper.pid, signal.SIGSTOP)
    big = {"BIG": "x" * 4_000_000}
    bench.keeper.obituary(["true"], big, timeout=30)
    assert bench.expect(KeeperDied) == [KeeperDied(exit_code=-signal.SIGKILL)]


def test_signals_do_not_end_the_keeper(bench: Bench) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        os.kill(bench.keeper.pid, number)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGTSTP):
        os.kill(bench.keeper.pid, number)
    bench.stop()
    bench.expect(Gone)


def test_the_death_of_the_keeper_is_told_once_and_last(bench: Bench) -> None:
    bench.spawn(SLEEP)
    [spawned] = bench.expect(Spawned)
    os.kill(bench.keeper.pid, signal.SIGKILL)
    wait_until(lambda: is_readable(bench.keeper.fileno()))
    assert bench.keeper.events() == [KeeperDied(exit_code=-signal.SIGKILL)]
    wait_until(lambda: not is_alive(spawned.pids[0]), message="the worker ends with its keeper")
    assert not is_readable(bench.keeper.fileno())
    assert bench.keeper.events() == []
    bench.stop()
    bench.keeper.disarm()
    with pytest.raises(KeeperMisuseError, match="died"):
        bench.spawn(SLEEP, round_number=1)


def test_a_protocol_error_ends_the_keeper_and_its_workers(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.spawn(SLEEP)
    bench.keeper._send({"do": "dance"})
    assert bench.expect(KeeperDied) == [KeeperDied(exit_code=1)]
    bench.expect_nothing_alive()


def test_misuse_is_refused_before_anything_is_done(bench: Bench) -> None:
    sleep = bench.command(0, SLEEP)
    for commands in ([], [sleep, sleep], [bench.command(0, ())]):
        with pytest.raises(KeeperMisuseError):
            bench.keeper.spawn(0, commands)
    for grace in (-1.0, float("inf"), float("nan")):
        with pytest.raises(KeeperMisuseError):
            bench.stop(grace=grace)
    with pytest.raises(KeeperMisuseError):
        bench.keeper.obituary([], {}, timeout=30)
    with pytest.raises(KeeperMisuseError):
        bench.keeper.spawn(-1, [sleep])
    bench.keeper.spawn(0, [sleep])
    with pytest.raises(KeeperMisuseError, match="round 0 is not gone"):
        bench.keeper.spawn(1, [sleep])


def test_a_message_beyond_the_bound_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_FRAME_BYTES", 1000)
    with pytest.raises(KeeperMisuseError, match="bound"):
        bench.keeper.spawn(0, [bench.command(0, SLEEP, env={"BIG": "x" * 1000})])
    bench.keeper.spawn(0, [WorkerCommand(local_rank=0, argv=SLEEP, env={"PATH": "/usr/bin:/bin"})])
    bench.expect(Spawned)


def test_close_kills_everything_and_may_be_repeated(bench: Bench, ready: Path) -> None:
    bench.tree(ready, "ignore-term")
    bench.keeper.close()
    bench.expect_nothing_alive()
    bench.keeper.close()
    assert bench.keeper.events() == bench.keeper.wait(0.0) == []
    with pytest.raises(KeeperMisuseError, match="closed"):
        bench.stop()


def test_start_refuses_a_proc_of_another_pid_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "sees_us", lambda: False)
    with pytest.raises(KeeperError, match="/proc"):
        Keeper.start()


def test_the_keeper_stays_small(bench: Bench) -> None:
    """12 MB is the target; the bound leaves room for other builds of Python."""
    big = {f"BIG_{n}": "x" * 100_000 for n in range(5)}
    bench.keeper.spawn(0, [bench.command(rank, SLEEP, env=big) for rank in range(8)])
    bench.expect(Spawned)
    wait_until(lambda: resident_kib(bench.keeper.pid) < 16 * 1024, message="it is small again")


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


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_a_held_descriptor_stays_open_with_the_keeper_and_not_with_the_workers(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    fd = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    keeper = Keeper.start(hold_fds=[fd])
    try:
        os.close(fd)
        command = WorkerCommand(local_rank=0, argv=SLEEP, env=dict(os.environ))
        keeper.spawn(0, [command])
        spawned = wait_until(lambda: [event for event in keeper.events() if isinstance(event, Spawned)])
        assert holds(keeper.pid, lock)
        assert not holds(spawned[0].pids[0], lock)
    finally:
        keeper.close()
    with lock.open() as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holds(pid: int, path: Path) -> bool:
    return any(fd.resolve() == path for fd in Path(f"/proc/{pid}/fd").iterdir())
