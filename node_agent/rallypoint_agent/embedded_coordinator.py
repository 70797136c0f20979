"""A coordinator for one agent: a process of its own that ends with us, however we end."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

from rallypoint_agent.coordinator_process import COMMAND, CoordinatorStartError, announced

if TYPE_CHECKING:
    from rallypoint.model import Endpoint

_ARGUMENTS = ("--embedded", "--listen", "127.0.0.1:0")
_END_TIMEOUT_S = 5.0


class EmbeddedCoordinator:
    """Started at once, in the background; it listens on a port of its own of this machine.

    It ends when its standard input does: nobody but us holds the other end.
    """

    def __init__(self, python: str = sys.executable, log_level: str = "warning") -> None:
        # Away from our terminal: a Ctrl-C is for us, and the job's good end still needs it.
        self._process = subprocess.Popen(
            [python, *COMMAND, *_ARGUMENTS, "--log-level", log_level],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def endpoint(self) -> Endpoint:
        """Where it listens; waits until it does. Raises CoordinatorStartError."""
        try:
            return announced(self._process)
        except CoordinatorStartError as error:
            raise CoordinatorStartError(f"the coordinator of this job's own did not start: {error}") from None

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def abandon(self) -> None:
        """End it at once, if it is still there: nobody has come to use it."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """End it, and wait until it has. Again is harmless."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
