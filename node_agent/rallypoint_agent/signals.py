"""Signals as something to wait for: a handler notes, it never acts."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any

SIGNALS_VARIABLE = "TORCHELASTIC_SIGNALS_TO_HANDLE"
DEFAULT_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT"

logger = logging.getLogger(__name__)


def signals_to_handle(environ: Mapping[str, str] = os.environ) -> tuple[signal.Signals, ...]:
    """The signals that end the agent, by torch's variable. Unknown names are said and left out."""
    names = environ.get(SIGNALS_VARIABLE, DEFAULT_SIGNALS).split(",")
    known = []
    for name in filter(None, (name.strip() for name in names)):
        try:
            known.append(signal.Signals[name])
        except KeyError:
            logger.warning("%s names %s, which is no signal here", SIGNALS_VARIABLE, name)
    return tuple(known)


class SignalWatch:
    """While it is entered, these signals only make ``fileno`` readable and wait to be taken.

    What handled them before does so again afterwards. One that is ignored stays so: that is what
    nohup is for. Python allows handlers in the main thread alone: in another one nothing is
    watched, which is said once.
    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._numbers = tuple(numbers)
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
        for number in self._numbers:
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
