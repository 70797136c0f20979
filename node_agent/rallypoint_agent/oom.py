"""Whether the kernel's out-of-memory killer was at work among the workers: what their cgroup counts of it.

The workers are in the agent's memory cgroup or below it. The kernel counts a kill before it sends the signal, so the
counter has it when the exit is seen. It does not say whom it killed: what ended by SIGKILL, told by nobody, while the
counter rose is taken for its victim.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

_CGROUP_MOUNT = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_FIELD = "oom_kill"
_READ_BYTES = 1 << 16
"""Of files with a line for each controller, or each counter."""

OomReason = Callable[[], str]
"""Why a process was killed, in words; "" if it was not for want of memory, as far as one can tell."""


class _Counter(NamedTuple):
    cgroup: str
    file: Path


def watch_for_oom_kills(mount: Path = _CGROUP_MOUNT, own: Path = _OWN_CGROUPS) -> OomReason:
    """From now on. Without a cgroup that can be read, there is never a reason."""
    for counter in _candidates(mount, own):
        if (before := _count(counter.file)) is not None:
            return partial(_reason, counter, before)
    return lambda: ""


def _reason(counter: _Counter, before: int) -> str:
    now = _count(counter.file)
    if now is None or now <= before:
        return ""
    return f"killed by the kernel's out-of-memory killer (cgroup {counter.cgroup}: {_FIELD} {before} -> {now})"


def _candidates(mount: Path, own: Path) -> Iterator[_Counter]:
    """Where the counter may be: version 2 alone, beside version 1, then version 1.

    Last the mount itself: in a container it may be its own cgroup, while the path in /proc is the host's.
    """
    for controllers, path in _own_cgroups(own):
        if controllers == "":
            yield from _places(path, (mount, mount / "unified"), "memory.events")
        elif "memory" in controllers.split(","):
            yield from _places(path, (mount / controllers, mount / "memory"), "memory.oom_control")


def _places(path: str, roots: tuple[Path, ...], name: str) -> Iterator[_Counter]:
    for root in roots:
        yield _Counter(path, root / path.lstrip("/") / name)
    for root in roots:
        yield _Counter("/", root / name)


def _own_cgroups(own: Path) -> Iterator[tuple[str, str]]:
    """Controllers, "" for version 2, and path. A line is ``ID:CONTROLLERS:PATH``."""
    for line in _read(own).splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            yield fields[1], fields[2]


def _count(file: Path) -> int | None:
    """None if it cannot be read or, before Linux 4.13, is not counted."""
    for line in _read(file).splitlines():
        name, _, value = line.partition(" ")
        if name == _FIELD and value.isdigit():
            return int(value)
    return None


def _read(file: Path) -> str:
    """Asked at each round's start and at its end, when others wait: by three system calls rather than nine."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, _READ_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
