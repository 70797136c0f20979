"""A worker that does with the watchdog's pipe what its argument says: in round 0, later ones end with 0."""

import json
import os
import signal
import subprocess
import sys
import time

from rallypoint.worker import FileTimerClient, expires

PIPE = os.environ["TORCHELASTIC_TIMER_FILE"]


def write(data: bytes) -> None:
    fd = os.open(PIPE, os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, data)
    os.close(fd)


def request(pid: int) -> bytes:
    text = json.dumps({"version": 1, "pid": pid, "scope_id": "forged", "expiration_time": 1, "signal": 9})
    return text.encode() + b"\n"


def deaf() -> None:
    """What it is told to end by it does not hear."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with expires(0.1, scope="deaf", client=FileTimerClient(PIPE, signal.SIGTERM)):
        signal.pause()


def polite() -> None:
    """It ends with 0 when it is told to end."""
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    with expires(0.1, scope="polite", client=FileTimerClient(PIPE, signal.SIGTERM)):
        signal.pause()


def evil() -> None:
    """Garbage, torn and oversized writes, and timers for processes that are no workers."""
    bystander = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    for pid in (os.getppid(), int(os.environ["AGENT_PID_FOR_TEST"]), 1, 0, -1, -os.getpgrp()):
        write(request(pid))
    for data in (b"garbage\n", b"{" * 5000 + b"\n", b"\xff\x00\n", b"[" * 60_000, b'\n{"version": 1, "pid"'):
        write(data)
    # A timer of this one's own behind the torn one, released in time: it must be heard of both.
    with expires(60, scope="fine"):
        pass
    bystander.kill()
    bystander.wait()


def hold() -> None:
    """A timer is armed until the file RELEASE appears."""
    with expires(600, scope="held"):
        while not os.path.exists(os.environ["RELEASE"]):
            time.sleep(0.02)


if os.environ["RALLYPOINT_ROUND"] == "0":
    {"deaf": deaf, "polite": polite, "evil": evil, "hold": hold}[sys.argv[1]]()
