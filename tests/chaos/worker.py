"""A worker with a child in a session of its own and an orphaned grandchild, each of which leaves a record of its life.

``worker.py FOLDER``. The record says whether, when it was made, a process of another round was alive: of two processes
whose lives overlap the one born later sees the other. While the file FOLDER/linger is there, the worker goes on after
a SIGTERM, as one that writes a checkpoint would.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from types import FrameType

MARK_VARIABLE = "RALLYPOINT_TEST_MARK"
ROUND_VARIABLE = "RALLYPOINT_ROUND"


def main(folder: str) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: end_gently(folder, number, frame))
    start_child(folder, "child")
    start_child(folder, "orphan")
    leave_record(folder, "worker")
    while True:
        signal.pause()


def end_gently(folder: str, number: int, frame: FrameType | None) -> None:
    write(f"{folder}/asked.{os.getpid()}", "")
    while os.path.exists(f"{folder}/linger"):
        time.sleep(0.01)
    os._exit(128 + number)


def start_child(folder: str, kind: str) -> None:
    if (pid := os.fork()) > 0:
        if kind == "orphan":
            os.waitpid(pid, 0)
        return
    os.setsid()
    if kind == "orphan" and os.fork() > 0:
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    leave_record(folder, kind)
    while True:
        signal.pause()


def leave_record(folder: str, kind: str) -> None:
    born_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    env = os.environ
    record = {
        "kind": kind,
        "pid": os.getpid(),
        "born_ns": born_ns,
        "job_uid": env["RALLYPOINT_JOB_UID"],
        "round": int(env[ROUND_VARIABLE]),
        "restart_count": int(env["TORCHELASTIC_RESTART_COUNT"]),
        "node": env["NODE"],
        "rank": int(env["RANK"]),
        "local_rank": int(env["LOCAL_RANK"]),
        "group_rank": int(env["GROUP_RANK"]),
        "world_size": int(env["WORLD_SIZE"]),
        "endpoint": f"{env['MASTER_ADDR']}:{env['MASTER_PORT']}",
        "strangers": strangers() if kind == "worker" else [],
    }
    write(f"{folder}/life.{record['round']}.{record['pid']}", json.dumps(record))


def write(path: str, text: str) -> None:
    """All of it or nothing, whatever happens to this process."""
    unfinished = f"{path}.unfinished"
    with open(unfinished, "w") as file:
        file.write(text)
    os.rename(unfinished, path)


def strangers() -> list[int]:
    """The live processes of this cluster's workers that are of another round."""
    mark = f"{MARK_VARIABLE}={os.environ[MARK_VARIABLE]}".encode()
    mine = f"{ROUND_VARIABLE}={os.environ[ROUND_VARIABLE]}".encode()
    found = []
    for name in os.listdir("/proc"):
        env = environ_of(name) if name.isdigit() else set()
        if mark in env and mine not in env and any(entry.startswith(ROUND_VARIABLE.encode()) for entry in env):
            found.append(int(name))
    return found


def environ_of(pid: str) -> set[bytes]:
    """Empty if it is gone, a zombie, or none of our business."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return set(file.read().split(b"\0"))
    except OSError:
        return set()


if __name__ == "__main__":
    main(*sys.argv[1:])
