"""Starting a coordinator as a process: its command line, and the line that it says when it serves."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from typing import TYPE_CHECKING

# Imported where it is needed: the coordinator should start before that.
if TYPE_CHECKING:
    from rallypoint.model import Endpoint

# -P: the working directory is the user's, and may hold a types.py.
COMMAND = ("-P", "-m", "rallypoint_coordinator")
"""The interpreter's arguments."""

START_TIMEOUT_S = 30.0
_ANNOUNCEMENT = re.compile(rb"rallypoint coordinator listening on (\S+):(\d+)\n")


class CoordinatorStartError(Exception):
    """The coordinator did not come up."""


def announced(process: subprocess.Popen[bytes]) -> Endpoint:
    """Where it listens, read off its standard output; waits until it does. Raises CoordinatorStartError."""
    from rallypoint.model import Endpoint

    assert process.stdout is not None
    deadline = time.monotonic() + START_TIMEOUT_S
    said = b""
    while not (found := _ANNOUNCEMENT.search(said)):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
            raise CoordinatorStartError(f"it said nothing for {START_TIMEOUT_S:g} s")
        data = os.read(process.stdout.fileno(), 4096)
        if not data:
            raise CoordinatorStartError(f"it exited with {process.wait()}")
        said += data
    return Endpoint(found[1].decode(), int(found[2]))
