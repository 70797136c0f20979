"""Work that may have to wait for somebody else, such as a reader of the console, done in a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

MAX_WAITING = 10_000

logger = logging.getLogger(__name__)

_Call = Callable[[], object]


class Background:
    """Makes calls in the order in which they are handed over. The thread runs once there is one.

    Whoever hands one over never waits: what comes while MAX_WAITING are waiting is dropped, and counted. What a call
    raises is logged.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.Queue[_Call | None] = queue.Queue(MAX_WAITING)
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def call(self, function: _Call) -> None:
        """Hand over a call. One thread does so."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        try:
            self._calls.put_nowait(function)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Wait until all calls are made. It takes as long as they take."""
        if self._thread is None:
            return
        self._calls.put(None)
        self._thread.join()
        self._thread = None
        if self._dropped:
            logger.warning("%s: %d dropped, being too many at once", self._name, self._dropped)

    def _run(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                function()
            except Exception:
                logger.warning("%s: a handler failed", self._name, exc_info=True)


class HandlerInBackground(logging.Handler):
    """Hands records over to another handler's thread, so that whoever logs does not wait."""

    def __init__(self, handler: logging.Handler, background: Background) -> None:
        super().__init__()
        self._handler = handler
        self._background = background

    def emit(self, record: logging.LogRecord) -> None:
        self._background.call(lambda: self._handler.handle(record))
