"""The two ends of the socket between an agent and its keeper."""

from __future__ import annotations

import fcntl
import os
import select
import signal
from pathlib import Path

import pytest

from rallypoint_agent.keeper import (
    Gone,
    Keeper,
    KeeperDied,
    KeeperError,
    KeeperMisuseError,
    Spawned,
    WorkerCommand,
    WorkerExited,
    framing,
    process_tree,
)
from support.keeper_bench import SLEEP, Bench, boot_ns
from support.processes import is_alive, pids_with_mark, wait_until


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
    # Alone, if the fence was there before the keeper had heard of the exec that is waited for above.
    assert [type(event) for event in bench.seen[15_000:]] in ([Spawned, WorkerExited, Gone], [Gone])


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
    bench.keeper.ask()
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


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
