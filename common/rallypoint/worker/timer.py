"""A deadline for a piece of work: whoever does not end it in time is killed by the agent's watchdog.

The standard library's counterpart of ``torch.distributed.elastic.timer``, writing the same into the same named pipe.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator

__all__ = ["FileTimerClient", "configure", "expires"]

_PATIENCE_S = 5.0
"""How long to wait for room in the pipe: the agent may be stopped, or busy."""


class FileTimerClient:
    """Asks the watchdog that listens at ``file_path`` to send ``signal`` to this process when a timer expires.

    ``signal`` 0: the expiry is only told. Raises ValueError for what is no signal.
    """

    def __init__(self, file_path: str, signal: int = signal.SIGKILL) -> None:
        if not 0 <= signal < 65:
            raise ValueError(f"{signal} is no signal")
        self.file_path = file_path
        self.signal = int(signal)

    def acquire(self, scope_id: str, expiration_time: float) -> None:
        """Arm the timer of this scope for an instant in seconds since the epoch, in place of what it was armed for.

        Raises ValueError if the scope is too long for one write, about 4000 bytes of JSON. If nobody listens, that
        is said on standard error, and no more: work without a watchdog is better than none.
        """
        self._send(scope_id, expiration_time, self.signal)

    def release(self, scope_id: str) -> None:
        """Disarm it."""
        self._send(scope_id, -1, 0)

    def _send(self, scope_id: str, expiration_time: float, number: int) -> None:
        request = {
            "version": 1,
            "pid": os.getpid(),
            "scope_id": scope_id,
            "expiration_time": expiration_time,
            "signal": number,
        }
        line = json.dumps(request).encode("ascii") + b"\n"
        # More is not written in one piece, and could mix with what others write.
        if len(line) > select.PIPE_BUF:
            raise ValueError(f"the scope takes {len(line)} bytes with what goes with it: {select.PIPE_BUF} is the most")
        try:
            self._write(line)
        except OSError as error:
            print(f"rallypoint: no watchdog at {self.file_path}: {error}", file=sys.stderr, flush=True)

    def _write(self, line: bytes) -> None:
        # Opened for each line, so that nothing is inherited by what this process starts.
        fd = os.open(self.file_path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not _fits(fd, line):
                raise TimeoutError(errno.ETIMEDOUT, f"nobody read for {_PATIENCE_S:g} s")
        finally:
            os.close(fd)


def _fits(fd: int, line: bytes) -> bool:
    """Write it, whole, as soon as there is room; whether that came in time."""
    deadline = time.monotonic() + _PATIENCE_S
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while True:
        try:
            os.write(fd, line)
        except BlockingIOError:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            poll.poll(left_s * 1000)
        else:
            return True


_client: FileTimerClient | None = None


def configure(client: FileTimerClient | None) -> None:
    """What ``expires`` is to use if it is given nothing; None: what the agent offers, if it offers anything."""
    global _client
    _client = client


@contextlib.contextmanager
def expires(after: float, scope: str | None = None, client: FileTimerClient | None = None) -> Iterator[None]:
    """Have this process killed if the block takes longer than ``after`` seconds. The job is restarted then.

    ``scope`` names the block in the failure; by default it is the file and line of the caller. A timer of a scope that
    is armed already replaces it, as in torch, but for the default: blocks within blocks have timers of their own.
    Where no agent offers a watchdog nothing happens. Raises ValueError if ``after`` is not a number.
    """
    if math.isnan(after):
        raise ValueError("a timer that expires after NaN seconds")
    timers = client or _client or _offered()
    if timers is None:
        yield
        return
    with _unique(_caller()) if scope is None else contextlib.nullcontext(scope) as name:
        timers.acquire(name, time.time() + after)
        try:
            yield
        finally:
            timers.release(name)


def _offered() -> FileTimerClient | None:
    path = os.environ.get("TORCHELASTIC_TIMER_FILE")
    return FileTimerClient(path) if path else None


def _caller() -> str:
    """Who uses ``expires``: the first frame that is neither here nor in contextlib."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in (__file__, contextlib.__file__):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}#{frame.f_lineno}"


_armed: set[str] = set()
_lock = threading.Lock()


@contextlib.contextmanager
def _unique(scope: str) -> Iterator[str]:
    """The scope, or with a number if it is in use, by another thread or further out."""
    name, number = scope, 1
    with _lock:
        while name in _armed:
            number += 1
            name = f"{scope} ({number})"
        _armed.add(name)
    try:
        yield name
    finally:
        with _lock:
            _armed.discard(name)
