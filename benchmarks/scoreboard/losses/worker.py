"""A worker with a child in a session of its own and an orphaned grandchild: it says when it began, and stays.

What it says goes to the socket BIRTHS, see inbox.py, in one message.
"""

import json
import os
import signal
import socket
import time

began = {"steady_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME), "wall_ns": time.time_ns()}


def wait_for_ever() -> None:
    while True:
        signal.pause()


def start(orphan: bool, announce: int) -> None:
    """Fork; whoever stays writes its pid, as one line."""
    if (pid := os.fork()) > 0:
        if orphan:
            os.waitpid(pid, 0)
        return
    os.setsid()
    if orphan and os.fork() > 0:
        os._exit(0)
    os.write(announce, f"{os.getpid()}\n".encode())
    wait_for_ever()


def family() -> list[int]:
    heard, announce = os.pipe()
    start(orphan=False, announce=announce)
    start(orphan=True, announce=announce)
    os.close(announce)
    with os.fdopen(heard) as lines:
        return [os.getpid(), int(lines.readline()), int(lines.readline())]


def main() -> None:
    env = os.environ
    birth = {
        **began,
        "job": env["TORCHELASTIC_RUN_ID"],
        "node": env["NODE"],
        "round": int(env["RALLYPOINT_ROUND"]),
        "restart_count": int(env["TORCHELASTIC_RESTART_COUNT"]),
        "rank": int(env["RANK"]),
        "world_size": int(env["WORLD_SIZE"]),
        "family": family(),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(json.dumps(birth).encode(), env["BIRTHS"])
    wait_for_ever()


main()
