"""The watchdog: a named pipe into which workers write their timers, and what has expired of them.

torch's FileTimerServer, on the main loop instead of a thread of its own, and trusting nothing that it reads:
a worker is killed by its keeper, never by a pid that came through the pipe.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import sys
import tempfile
import termios
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import NamedTuple

from rallypoint.model import WatchdogStatus
from rallypoint.values import dataclass
from rallypoint_agent.file_timer_requests import BadRequestError, LineCutter, TimerRequest, parse_request
from rallypoint_agent.file_timer_table import Timer, TimerTable
from rallypoint_agent.keeper.linux import BootTimer, boot_ns
from rallypoint_agent.throttled_log import ThrottledLog

FILE_VARIABLE = "TORCHELASTIC_TIMER_FILE"

_PIPE_BYTES = 1 << 20
"""Room for what workers write while the main loop is busy. A full pipe is trouble for torch's client."""

_READ_BYTES = 1 << 16
_PAUSE_NS = 50_000_000
"""Between two passes: what thousands of timers per second cost the agent is bounded."""

_RETRY_NS = 1_000_000_000
_DEEPEST = 64

logger = logging.getLogger(__name__)

LogEvent = Callable[[str, TimerRequest | None], None]
"""As torch's ``log_event``: "watchdog started", "timer expired", "kill worker process", "watchdog stopped"."""


def default_path() -> str:
    """Where nobody named a pipe."""
    return f"{tempfile.gettempdir()}/watchdog_timer_{uuid.uuid4()}"


class _Instant(NamedTuple):
    """The same instant on two clocks."""

    boot_ms: int
    wall_s: float

    @classmethod
    def now(cls) -> _Instant:
        return cls(boot_ns() // 10**6, time.time())


class WatchdogError(Exception):
    """There can be no watchdog; the text says where and why."""


@dataclass(frozen=True, slots=True)
class _Workers:
    """The processes of the round whose timers count. ``ranks``: local ranks by pid, of those alive. ``ended``: pids of
    those that were; what they still said in time comes to nothing."""

    first_rank: int = 0
    ranks: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)

    def end(self, pid: int) -> None:
        del self.ranks[pid]
        self.ended.add(pid)


class FileTimerServer:
    """For one thread. ``look`` is a pass: it never waits, for a first client neither.

    ``file_path`` is made a FIFO. A worker that an expired timer condemned to end by another signal than SIGKILL, and
    that has not after ``grace_s`` seconds, is due for SIGKILL. Raises WatchdogError if ``file_path`` cannot be had:
    there is something that is no FIFO, or one that somebody listens at, or the folder cannot be written to.
    """

    def __init__(self, file_path: str, grace_s: float, log_event: LogEvent | None = None) -> None:
        self.file_path = file_path
        self._log_event = log_event or (lambda name, request: None)
        self._table = TimerTable(round(grace_s * 1000))
        self._cutter = LineCutter()
        self._workers: _Workers | None = _Workers()
        self._last_expiry = ""
        self._complaints = ThrottledLog(logger.warning, "complaints of the watchdog", most=1)
        try:
            self._pipe = _make_pipe(file_path)
        except OSError as error:
            raise WatchdogError(f"{file_path}: {error.strerror}") from error
        self._alarm = BootTimer()
        self._next_pass_ns = 0
        self._backlog = 0
        """Bytes that were in the pipe at ``_as_of`` and were not read yet."""
        self._as_of = _Instant.now()
        self._progress_time = time.time()
        self._log_event("watchdog started", None)

    def close(self) -> None:
        """Remove the pipe, unless something else is in its place. What is in it has been for nothing."""
        if self._is_in_place():
            with contextlib.suppress(OSError):
                os.unlink(self.file_path)
        os.close(self._pipe)
        os.close(self._alarm.fd)
        self._complaints.settle()
        self._log_event("watchdog stopped", None)

    def fds(self) -> list[int]:
        """Readable when a pass is due."""
        waits = self._workers is None or boot_ns() < self._next_pass_ns
        return [self._alarm.fd] if waits else [self._alarm.fd, self._pipe]

    def get_last_progress_time(self) -> int:
        """When the last pass succeeded, in seconds since the epoch. torch's name."""
        return int(self._progress_time)

    @property
    def status(self) -> WatchdogStatus:
        return WatchdogStatus(
            enabled=True,
            progress_time_ms=round(self._progress_time * 1000),
            live_timers=len(self._table),
            last_expiry=self._last_expiry,
        )

    # --- whose timers count

    def await_workers(self) -> None:
        """Workers are being started. Until they are known nothing is read: what they write waits in the pipe."""
        self.forget_workers()
        self._discard()
        if not self._is_in_place():
            self._replace_pipe()
        self._workers = None

    def set_workers(self, pids: Mapping[int, int], first_rank: int) -> None:
        """These are the workers now. ``pids`` is by local rank, the rank of local rank 0 is ``first_rank``."""
        self._workers = _Workers(first_rank, {pid: local_rank for local_rank, pid in pids.items()})

    def worker_gone(self, local_rank: int) -> None:
        if self._workers is not None:
            for pid in [pid for pid, rank in self._workers.ranks.items() if rank == local_rank]:
                self._workers.end(pid)
        self._table.drop(local_rank)

    def forget_workers(self) -> None:
        """None is alive."""
        before = self._workers or _Workers()
        self._workers = _Workers(ended=before.ended | before.ranks.keys())
        self._table.clear()
        self._set_alarm(0)

    # --- a pass

    def look(self) -> list[Timer]:
        """Read what was written, and say what has expired, each once. Trouble with the pipe is logged."""
        now_ns = boot_ns()
        if self._workers is None or now_ns < self._next_pass_ns:
            self._progress_time = time.time()
            return []
        try:
            lines = self._read()
        except OSError as error:
            # No timer is judged then: the release that would save its worker may be what cannot be read.
            self._complaints.tell(f"the watchdog cannot read {self.file_path}: {error}")
            self._set_alarm(now_ns + _RETRY_NS)
            return []
        self._note_all(self._workers, lines)
        self._progress_time = time.time()
        if self._backlog:
            return []
        expired = [timer for timer in self._table.expire(self._as_of.boot_ms) if self._is_alive(timer)]
        for timer in expired:
            self._note_expiry(self._workers, timer)
        self._set_alarm(boot_ns() + _PAUSE_NS if lines else 0)
        return expired

    def _read(self) -> list[bytes]:
        """The next lines, so many that a flood of them holds nobody up.

        Timers are judged as of an instant at which all that was in the pipe has been read by now, so that who was
        released in time is safe, and who floods the pipe saves nobody.
        """
        if not self._backlog:
            self._as_of, self._backlog = _Instant.now(), _bytes_in(self._pipe)
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            data = b""
        self._backlog = max(0, self._backlog - len(data)) if data else 0
        return self._cutter.feed(data)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.lstat(self.file_path), os.fstat(self._pipe))
        except OSError:
            return False

    def _replace_pipe(self) -> None:
        """Who tidied up temporary files may have taken it: the workers that are started would look for it in vain."""
        try:
            pipe = _make_pipe(self.file_path)
        except OSError as error:
            logger.warning("there is no watchdog pipe at %s any more: %s", self.file_path, error.strerror)
            return
        os.close(self._pipe)
        self._pipe = pipe

    def _discard(self) -> None:
        """Empty the pipe."""
        self._backlog = 0
        self._cutter.clear()
        with contextlib.suppress(OSError):
            for _ in range(2 * _PIPE_BYTES // _READ_BYTES):
                os.read(self._pipe, _READ_BYTES)

    def _note_all(self, workers: _Workers, lines: list[bytes]) -> None:
        for line in lines:
            try:
                request = parse_request(line)
            except BadRequestError as error:
                self._complaints.tell(f"the watchdog cannot use what somebody wrote: {error}")
            else:
                self._note(workers, request)

    def _note(self, workers: _Workers, request: TimerRequest) -> None:
        if request.is_release:
            self._table.release(request)
            return
        owner = _owner(workers.ranks, request.pid)
        if owner is None:
            if request.pid in workers.ended:
                return
            self._complaints.tell(f"the watchdog refuses a timer of pid {request.pid}, which is no worker of ours")
        elif not self._table.acquire(request, *owner, self._as_of.boot_ms, self._as_of.wall_s):
            self._complaints.tell(f"the watchdog refuses a timer of pid {request.pid}, which has too many")

    def _is_alive(self, timer: Timer) -> bool:
        """Of a process that is not a worker itself nobody tells us that it ended."""
        if not timer.birth:
            return True
        life = _life(timer.request.pid)
        return life is not None and life.birth == timer.birth

    def _note_expiry(self, workers: _Workers, timer: Timer) -> None:
        request = timer.request
        self._last_expiry = f"rank {workers.first_rank + timer.local_rank}: scope {request.scope_id}"
        self._log_event("timer expired", request)
        if request.signal:
            self._log_event("kill worker process", request)

    def _set_alarm(self, next_pass_ns: int) -> None:
        """The next pass is not before that (0: as soon as something is written), and is due at the next deadline."""
        self._next_pass_ns = next_pass_ns
        deadline_ms = self._table.next_deadline_ms
        due = [next_pass_ns] if next_pass_ns else []
        if deadline_ms is not None:
            due.append(max(next_pass_ns, deadline_ms * 10**6))
        self._alarm.clear()
        self._alarm.set(min(due, default=None))


@dataclass(frozen=True, slots=True)
class _Life:
    parent: int
    birth: int


def _owner(ranks: Mapping[int, int], pid: int) -> tuple[int, int] | None:
    """The worker, by local rank, that this process is or descends from, and its birth (0 for the worker itself).

    A script may be run by a wrapper, and the worker is that wrapper then.
    """
    if pid in ranks:
        return ranks[pid], 0
    birth, ancestor = 0, pid
    for _ in range(_DEEPEST):
        life = _life(ancestor)
        if life is None:
            return None
        birth, ancestor = birth or life.birth, life.parent
        if ancestor in ranks:
            return ranks[ancestor], birth
    return None


def _life(pid: int) -> _Life | None:
    """From /proc; None if there is no such process."""
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The program's name, in parentheses, may itself hold blanks and parentheses.
    fields = content.rpartition(b")")[2].split()
    return _Life(parent=int(fields[1]), birth=int(fields[19]))


def _make_pipe(path: str) -> int:
    """A new FIFO, open for both: so there is always a reader for those who write, and no end of file for us."""
    _clear_way(path)
    os.mkfifo(path, 0o600)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    # Refused where a user's share of pipe memory is spent: then it holds less.
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return fd


def _bytes_in(pipe: int) -> int:
    number = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(number, sys.byteorder)


def _clear_way(path: str) -> None:
    """Remove a FIFO that an agent which was killed has left. Raises FileExistsError for anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISFIFO(found.st_mode):
        raise FileExistsError(errno.EEXIST, "something else than a watchdog's pipe is there", path)
    if _has_reader(path):
        raise FileExistsError(errno.EEXIST, "another agent's watchdog uses it", path)
    os.unlink(path)


def _has_reader(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno != errno.ENXIO
    return True
