"""A coordinator for one agent: a process of its own that ends with us, however we end."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import time

from rallypoint.model import Endpoint

_ARGUMENTS = ("--embedded", "--listen", "127.0.0.1:0")
_START_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 5.0
_ANNOUNCEMENT = re.compile(rb"rallypoint coordinator listening on (\S+):(\d+)\n")


class CoordinatorStartError(Exception):
    """The coordinator did not come up."""


class EmbeddedCoordinator:
    """Started at once, in the background; it listens on a port of its own of this machine.

    It ends when its standard input does: nobody but us holds the other end.
    """

    def __init__(self, python: str = sys.executable, log_level: str = "warning") -> None:
        # -P: the working directory is the user's, and may hold a types.py.
        # Away from our terminal: a Ctrl-C is for us, and the job's good end still needs it.
        self._process = subprocess.Popen(
            [python, "-P", "-m", "rallypoint_coordinator", *_ARGUMENTS, "--log-level", log_level],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def endpoint(self) -> Endpoint:
        """Where it listens; waits until it does. Raises CoordinatorStartError."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        said = b""
        while not (found := _ANNOUNCEMENT.search(said)):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._process.stdout], [], [], left_s)[0]:
                raise CoordinatorStartError(f"it said nothing for {_START_TIMEOUT_S:g} s")
            data = os.read(self._process.stdout.fileno(), 4096)
            if not data:
                raise CoordinatorStartError(f"it exited with {self._process.wait()}")
            said += data
        return Endpoint(found[1].decode(), int(found[2]))

    def close(self) -> None:
        """End it, and wait until it has."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
