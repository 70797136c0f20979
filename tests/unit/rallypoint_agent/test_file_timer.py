"""The watchdog's I/O, with a real named pipe. Its passes are made by the test, so nothing here waits."""

from __future__ import annotations

import json
import os
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint_agent.file_timer import FileTimerServer, WatchdogError
from rallypoint_agent.file_timer_requests import TimerRequest
from support.processes import wait_until
from support.threads import watch_threads

ME = os.getpid()


class Bench:
    def __init__(self, path: Path) -> None:
        self.events: list[tuple[str, str]] = []
        self.server = FileTimerServer(str(path), 30, self._log_event)

    def _log_event(self, name: str, request: TimerRequest | None) -> None:
        self.events.append((name, request.scope_id if request else ""))

    def write(self, data: bytes) -> None:
        fd = os.open(self.server.file_path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, data)
        os.close(fd)

    def ask(
        self, scope: str = "s", after_s: float = -1.0, *, pid: int = ME, signal: int = 9, release: bool = False
    ) -> None:
        at = -1.0 if release else time.time() + after_s
        request = {"version": 1, "pid": pid, "scope_id": scope, "expiration_time": at, "signal": signal}
        self.write(json.dumps(request).encode() + b"\n")

    def look(self) -> list[tuple[int, str]]:
        """A pass, made as soon as one may be."""
        wait_until(lambda: self.server._pipe in self.server.fds())
        return [(timer.local_rank, timer.request.scope_id) for timer in self.server.look()]

    def is_due(self) -> bool:
        return bool(select.select(self.server.fds(), [], [], 0)[0])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "timer")
    bench.server.set_workers({0: ME}, 4)
    yield bench
    bench.server.close()


def test_a_pass_does_not_wait_for_a_first_client(tmp_path: Path) -> None:
    begun = watch_threads()
    bench = Bench(tmp_path / "timer")
    bench.server.set_workers({0: ME}, 4)
    assert not bench.is_due()
    assert bench.look() == []
    assert not bench.is_due()
    assert begun() == []
    bench.server.close()
    assert begun() == [], "no thread is left"


def test_a_pipe_that_was_removed_is_there_again_for_the_next_workers(bench: Bench) -> None:
    os.unlink(bench.server.file_path)
    bench.server.await_workers()
    bench.server.set_workers({0: ME}, 4)
    bench.ask("a")
    assert bench.is_due()
    assert bench.look() == [(0, "a")]


def test_what_is_in_the_pipes_place_is_told_and_not_removed(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(bench.server.file_path)
    path.unlink()
    path.write_text("somebody's")
    bench.server.await_workers()
    assert "something else than a watchdog's pipe is there" in caplog.text
    bench.server.set_workers({0: ME}, 4)
    assert bench.look() == []
    bench.server.close()
    assert path.read_text() == "somebody's"
    path.unlink()
    bench.server = FileTimerServer(str(path), 30)


def test_an_expired_timer_is_found_told_and_counted_no_more(bench: Bench) -> None:
    bench.ask("a", 60)
    bench.ask("b")
    assert bench.is_due()
    assert bench.look() == [(0, "b")]
    assert bench.look() == []
    assert bench.events == [("watchdog started", ""), ("timer expired", "b"), ("kill worker process", "b")]
    status = bench.server.status
    assert (status.enabled, status.live_timers, status.last_expiry) == (True, 0, "rank 4: scope b")


def test_live_timers_are_counted(bench: Bench) -> None:
    bench.ask("a", 60)
    bench.ask("b", 60)
    bench.ask("a", release=True)
    bench.look()
    assert bench.server.status.live_timers == 1


def test_a_release_that_came_in_time_counts_however_late_the_pass_is(bench: Bench) -> None:
    bench.ask()
    bench.ask(release=True)
    assert bench.look() == []


def test_it_wakes_when_a_timer_expires(bench: Bench) -> None:
    bench.ask(after_s=0.2)
    assert bench.look() == []
    wait_until(bench.is_due)
    found = wait_until(bench.look)
    assert found == [(0, "s")]
    bench.look()
    assert not bench.is_due()


def test_a_set_clock_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.ask(after_s=60)
    bench.look()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10**6)
    assert bench.look() == []
    assert bench.server.status.live_timers == 1


def test_what_is_no_request_is_told_once_and_hurts_nobody(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for text in (b"\n", b"garbage\n", b"{}\n", b"\xff" * 5000 + b"\n", b'{"version": 1, "pid": 12'):
        bench.write(text)
    bench.ask()
    assert bench.look() == [(0, "s")]
    assert caplog.text.count("cannot use what somebody wrote") == 1


@pytest.mark.parametrize("pid", [1, os.getppid(), 2**31 - 1])
def test_a_process_that_is_no_workers_gets_no_timer(bench: Bench, caplog: pytest.LogCaptureFixture, pid: int) -> None:
    bench.ask(pid=pid)
    assert bench.look() == []
    assert f"pid {pid}, which is no worker of ours" in caplog.text


def test_what_a_worker_started_counts_as_that_worker_while_it_lives(bench: Bench) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    bench.ask("mine", pid=child.pid)
    assert bench.look() == [(0, "mine")]
    bench.server.set_workers({0: ME}, 4)
    bench.server.worker_gone(0)
    bench.server.set_workers({0: ME}, 4)
    bench.ask("not yet", 0.3, pid=child.pid)
    assert bench.look() == []
    child.communicate(b"\n")
    wait_until(bench.is_due)
    assert bench.look() == []
    assert bench.server.status.last_expiry == "rank 4: scope mine"


def test_a_gone_worker_has_no_timers_and_is_no_stranger(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.ask(after_s=0.01)
    bench.look()
    bench.server.worker_gone(0)
    bench.ask()
    assert bench.look() == []
    bench.server.forget_workers()
    bench.ask()
    assert bench.look() == []
    assert "no worker of ours" not in caplog.text


def test_what_workers_write_before_they_are_known_is_not_lost(bench: Bench) -> None:
    bench.ask("of the round before")
    bench.server.await_workers()
    bench.ask("early")
    assert bench.server.look() == []
    assert not bench.is_due()
    bench.server.set_workers({2: ME}, 0)
    assert bench.is_due()
    assert bench.look() == [(2, "early")]


def test_a_flood_is_read_bit_by_bit_and_saves_nobody(bench: Bench) -> None:
    bench.ask("hangs")
    for _ in range(5):
        bench.write(b"x\n" * 30_000)
    bench.ask("released")
    bench.ask("released", release=True)
    passes = [bench.look()]
    while not passes[-1]:
        bench.write(b"more\n")
        passes.append(bench.look())
    assert passes[-1] == [(0, "hangs")]
    assert len(passes) == 5, "a pass reads 64 KiB"
    assert bench.server._pipe not in bench.server.fds(), "the next pass has to wait"
    wait_until(bench.is_due)


def test_what_the_round_before_wrote_is_thrown_away(bench: Bench) -> None:
    for _ in range(5):
        bench.ask("old")
        bench.write(b"x\n" * 30_000)
    bench.look()
    bench.server.await_workers()
    bench.server.set_workers({0: ME}, 4)
    assert bench.look() == []
    assert not bench.is_due()


def test_a_pipe_that_fails_is_told_and_no_timer_is_judged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.ask(after_s=0.01)
    bench.look()
    before = bench.server.get_last_progress_time()
    bench.server._progress_time = before - 100.0
    real, bench.server._pipe = bench.server._pipe, os.open(os.devnull, os.O_WRONLY)
    try:
        assert bench.look() == []
    finally:
        os.close(bench.server._pipe)
        bench.server._pipe = real
    assert "cannot read" in caplog.text
    assert bench.server.get_last_progress_time() == before - 100


def test_its_pipe_is_its_users_alone_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "timer"
    server = FileTimerServer(str(path), 30)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server.close()
    assert not path.exists()


def test_what_a_killed_agent_left_is_in_nobodys_way(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "timer")
    FileTimerServer(str(tmp_path / "timer"), 30).close()


def test_another_agents_pipe_is_left_alone(bench: Bench) -> None:
    with pytest.raises(WatchdogError, match="another agent's"):
        FileTimerServer(bench.server.file_path, 30)
    bench.ask()
    assert bench.look() == [(0, "s")]


def test_somebodys_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(WatchdogError, match="something else"):
        FileTimerServer(str(path), 30)
    assert path.read_text() == "x"
