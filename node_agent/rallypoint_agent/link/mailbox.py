"""What the link's thread tells the main thread."""

from __future__ import annotations

import os
import threading
from collections import deque

from rallypoint_agent.core.events import (
    ConnectionsRefused,
    DirectiveReceived,
    Event,
    LeaseRenewed,
)


class Mailbox:
    """A queue of events with a descriptor that is readable while something waits.

    An event that only says more of the same replaces the one before it. So while the main thread
    does not look, the queue grows only as often as the link attaches, and a link whose main thread
    does not look soon stops attaching.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def put(self, event: Event) -> None:
        with self._lock:
            if self._events and _replaces(event, self._events[-1]):
                self._events[-1] = event
            else:
                self._events.append(event)
        self.wake()

    def wake(self) -> None:
        """Make the descriptor readable."""
        os.eventfd_write(self._fd, 1)

    def drain(self) -> list[Event]:
        """Everything that waits, oldest first; the descriptor is then not readable."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return []
        with self._lock:
            events = list(self._events)
            self._events.clear()
        return events

    def close(self) -> None:
        """Free the descriptor; only when nothing can be put any more. Again is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _replaces(event: Event, before: Event) -> bool:
    match before, event:
        case (LeaseRenewed(), LeaseRenewed()) | (ConnectionsRefused(), ConnectionsRefused()):
            return True
        case DirectiveReceived(directive=old), DirectiveReceived(directive=new):
            return old.version < new.version
        case _:
            return False
