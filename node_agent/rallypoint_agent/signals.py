"""Signals as something to wait for: a handler notes, it never acts."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

SIGNALS_VARIABLE = "TORCHELASTIC_SIGNALS_TO_HANDLE"
DEFAULT_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT"
UNHANDLED = ("SIGKILL", "SIGSTOP")

LAST_WAIT_S = 1.0
"""So long a process that is told to end goes on with its own end."""

logger = logging.getLogger(__name__)


def signals_to_handle(environ: Mapping[str, str] = os.environ) -> tuple[signal.Signals, ...]:
    """The signals that end the agent, by torch's variable. Unknown names, and signals that no process can handle, are
    said and left out."""
    names = environ.get(SIGNALS_VARIABLE, DEFAULT_SIGNALS).split(",")
    known = []
    for name in filter(None, (name.strip() for name in names)):
        if name not in signal.Signals.__members__:
            logger.warning("%s names %s, which is no signal here", SIGNALS_VARIABLE, name)
        elif name in UNHANDLED:
            logger.warning("%s names %s, which no process can handle", SIGNALS_VARIABLE, name)
        else:
            known.append(signal.Signals[name])
    return tuple(known)


class SignalWatch:
    """While it is entered, these signals only make ``fileno`` readable and wait to be taken.

    What handled them before does so again afterwards. One that is ignored stays so: that is what
    nohup is for. Python allows handlers in the main thread alone: in another one nothing is
    watched, which is said once.
    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self.numbers = tuple(numbers)
        self._noted: deque[int] = deque()
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1
        self._is_watching = False
        self._reader, self._writer = -1, -1

    def __enter__(self) -> SignalWatch:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        if threading.current_thread() is not threading.main_thread():
            logger.warning("not in the main thread: a signal will not be passed on to the workers")
            return self
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._is_watching = True
        for number in self.numbers:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue
            # None is a handler that was not set from Python: it cannot be put back.
            self._before[number] = signal.signal(number, self._note) or signal.SIG_DFL
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_watching:
            signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        self._is_watching = False
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._reader

    def take(self) -> list[int]:
        """The signals that came since the last call, in their order."""
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            return []
        taken = []
        while self._noted:
            taken.append(self._noted.popleft())
        return taken

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted.append(number)


class LastSignals:
    """While it is entered, and ``guard`` was called, no signal changes an exit status that is decided.

    It only bounds the waiting for others, such as whoever reads our output: a second more, or until the next signal.
    Afterwards these signals are ignored for good: the interpreter, as it ends, puts the default in a handler's place.
    One that is ignored before stays so.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._status: Callable[[], int | None] = lambda: None
        self._is_ending = False

    def guard(self, numbers: Iterable[signal.Signals], status: Callable[[], int | None]) -> None:
        """``status`` gives the exit status; None while it is not decided: then a signal does what it did before."""
        self._status = status
        signal.signal(signal.SIGALRM, self._give_up)
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._hasten) or signal.SIG_DFL

    def __enter__(self) -> LastSignals:
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _hasten(self, number: int, frame: FrameType | None) -> None:
        if self._status() is None:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        elif self._is_ending:
            self._give_up(number, frame)
        else:
            self._is_ending = True
            signal.setitimer(signal.ITIMER_REAL, LAST_WAIT_S)

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        os._exit(self._status() or 0)
