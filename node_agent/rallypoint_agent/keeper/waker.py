"""What the keeper sleeps on: descriptors, the end of a child, an instant of CLOCK_BOOTTIME."""

from __future__ import annotations

import os
import select
import signal

from rallypoint_agent.keeper import linux


class Waker:
    def __init__(self) -> None:
        self._poll = select.poll()
        self._timer = linux.BootTimer()
        self._child_ended, sender = os.pipe()
        os.set_blocking(self._child_ended, False)
        os.set_blocking(sender, False)
        self.watch(self._timer.fd)
        self.watch(self._child_ended)
        signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        # Python's own handler writes to the pipe; without one it would not.
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def watch(self, fd: int, events: int = select.POLLIN) -> None:
        """Wake for these events, instead of those watched for on ``fd`` before."""
        self._poll.register(fd, events)

    def forget(self, fd: int) -> None:
        self._poll.unregister(fd)

    def wait(self, deadline_ns: int | None) -> dict[int, int]:
        """Sleep until something happens or the deadline is there; events by descriptor."""
        self._timer.set(deadline_ns)
        ready = dict(self._poll.poll())
        if ready.pop(self._timer.fd, 0):
            self._timer.clear()
        if ready.pop(self._child_ended, 0):
            os.read(self._child_ended, 4096)
        return ready
