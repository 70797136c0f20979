"""A worker with a family that is hard to find: ``tree_worker.py READY [ignore-term] [leave]``.

Its child left the session, its grandchild was orphaned and left it too. When all of them run, it
makes the file READY. ``ignore-term``: none of them ends by SIGTERM. ``leave``: the worker itself
exits then and leaves them behind.
"""

import os
import signal
import sys


def wait_for_ever() -> None:
    while True:
        signal.pause()


def start(orphan: bool, announce: int) -> None:
    if os.fork() > 0:
        return
    os.setsid()
    if orphan and os.fork() > 0:
        os._exit(0)
    os.write(announce, b".")
    wait_for_ever()


def main(ready: str, *options: str) -> None:
    if "ignore-term" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    heard, announce = os.pipe()
    start(orphan=False, announce=announce)
    start(orphan=True, announce=announce)
    for _ in range(2):
        os.read(heard, 1)
    os.close(os.open(ready, os.O_CREAT | os.O_WRONLY))
    if "leave" not in options:
        wait_for_ever()


main(*sys.argv[1:])
