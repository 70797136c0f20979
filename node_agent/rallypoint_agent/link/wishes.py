"""What the main thread wants of the link's thread: always the newest, never a queue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from rallypoint.model import Observed, WatchdogStatus
from rallypoint_agent.core.effects import Leave


class Identity(NamedTuple):
    """What a Hello carries from earlier ones; empty and 0 for none."""

    cluster_id: str = ""
    job_uid: str = ""
    lease_id: int = 0


class News(NamedTuple):
    """What there is to report. ``urgent`` counts the reports so far that could not wait."""

    observed: Observed = Observed()
    urgent: int = 0


class Wishes:
    """Written by the main thread, read by the link's; a change calls the listener.

    ``leave`` and ``closing`` are never taken back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listener: Callable[[], object] | None = None
        self._alive_until_ms: int | None = None
        self._starving = False
        self._reattach = False
        # What a Hello, or a heartbeat, says when there is one to say, so nobody has to be told of a change.
        self.identity = Identity()
        self.watchdog: WatchdogStatus | None = None
        self.news = News()
        self.leave: Leave | None = None
        self.closing = False

    def listen(self, listener: Callable[[], object] | None) -> None:
        """Call this, in the thread of whoever wishes something, at every change from now on."""
        with self._lock:
            self._listener = listener

    def report(self, observed: Observed, *, can_wait: bool = False) -> None:
        """``can_wait``: until the next heartbeat is due. Nobody has to be told of it."""
        with self._lock:
            self.news = News(observed, self.news.urgent + (not can_wait))
            if not can_wait:
                self._notify()

    def alive_until(self, boot_ms: int) -> None:
        with self._lock:
            self._alive_until_ms = boot_ms
            # A pulse comes often, and matters only to a link that waits for one.
            if self._starving:
                self._notify()

    def is_alive(self, now_ms: int) -> bool:
        """Whether the main thread is known to work. If not, its next pulse calls the listener."""
        with self._lock:
            self._starving = self._alive_until_ms is not None and self._alive_until_ms < now_ms
            return not self._starving

    def reattach(self) -> None:
        with self._lock:
            self._reattach = True
            self._notify()

    @property
    def wants_reattach(self) -> bool:
        return self._reattach

    def take_reattach(self) -> None:
        """The wish to attach again is being granted: what is wished from now on is a new one."""
        with self._lock:
            self._reattach = False

    def wish_leave(self, leave: Leave) -> None:
        with self._lock:
            self.leave = leave
            self._notify()

    def close(self) -> None:
        with self._lock:
            self.closing = True
            self._notify()

    def _notify(self) -> None:
        if self._listener is not None:
            self._listener()
