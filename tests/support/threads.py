"""Which threads a test has made: what earlier tests left behind may end at any time, so numbers say nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable


def watch_threads() -> Callable[[], list[str]]:
    """Gives a function that gives the names of the threads that have begun since, and live."""
    before = set(threading.enumerate())
    return lambda: [thread.name for thread in threading.enumerate() if thread not in before]
