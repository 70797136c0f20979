"""Finding and killing everything that descends from a process.

Runs in the keeper too: standard library only, and only what is cheap to import.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

# See framing.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    _Life = tuple[int, bytes]  # A pid, which may be given anew, and when that process began.

FIRST_PAUSE_NS = 1_000_000
LONGEST_PAUSE_NS = 250_000_000


class Pace:
    """When to look for survivors again: soon while processes end, ever later while none does.

    So a process that SIGKILL cannot end (it is stuck in the kernel) costs next to nothing.
    """

    def __init__(self) -> None:
        self.next_ns = 0
        self._pause_ns = FIRST_PAUSE_NS

    def looked(self, now_ns: int) -> None:
        self.next_ns = now_ns + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)

    def progressed(self, now_ns: int) -> None:
        """A process ended: its children may just have become ours."""
        self._pause_ns = FIRST_PAUSE_NS
        self.next_ns = min(self.next_ns, now_ns + FIRST_PAUSE_NS)


def sees_us() -> bool:
    """Whether /proc is mounted, and for our pid namespace: all else in this file rests on it."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except FileNotFoundError:
        return False


def kill_descendants(root: int, keep: Collection[int] = ()) -> list[int]:
    """Send SIGKILL once to every descendant of ``root`` but the subtrees of the pids in ``keep``.

    Returns those found, zombies included, parents before children. One pass proves nothing: what
    is forked or orphaned meanwhile is missed. Repeat it, reaping, until none is found.
    """
    found: list[int] = []
    family = {root, *keep}
    layer = [root]
    while layer:
        # Parents are killed before their children are listed, so they cannot replace them.
        layer = [pid for pid in _children(layer) if pid not in family]
        for pid in layer:
            _kill_member(pid, family)
        family.update(layer)
        found += layer
    return found


def sweep(keep: Collection[int], timeout: float | None) -> list[int]:
    """Kill and reap all descendants of this process but the subtrees in ``keep``.

    Returns those still there after ``timeout`` seconds; None waits until there are none.
    """
    pace = Pace()
    deadline = None if timeout is None else time.monotonic() + timeout
    while found := kill_descendants(os.getpid(), keep):
        pace.looked(now := time.monotonic_ns())
        if sum(map(_reap, found)):
            pace.progressed(now)
        if deadline is not None and time.monotonic() >= deadline:
            break
        time.sleep((pace.next_ns - now) / 1e9)
    return found


def sweep_marked(entry: str, timeout: float) -> tuple[int, list[int]]:
    """Kill every process that has ``entry`` (NAME=VALUE) in its environment, and all that descends from such ones.

    Spared are this process, those that it descends from and its descendants. What dropped the entry and lost its
    parent is not found. Returns how many were killed, and those still there after ``timeout`` seconds.
    """
    pace = Pace()
    deadline = time.monotonic() + timeout
    killed: set[_Life] = set()
    looks_in_vain = 0
    # One look proves nothing: it misses the child of a process that ends meanwhile by itself.
    while looks_in_vain < 2:
        # What was killed may outlast the parent by whom it was found.
        found = _kill_marked(entry.encode()) | set(filter(_lives, killed))
        pace.looked(now := time.monotonic_ns())
        if found - killed:
            pace.progressed(now)
        killed |= found
        looks_in_vain = 0 if found else looks_in_vain + 1
        if found and time.monotonic() >= deadline:
            return len(killed), sorted(pid for pid, _ in found)
        time.sleep((pace.next_ns - now) / 1e9)
    return len(killed), []


def _kill_marked(entry: bytes) -> set[_Life]:
    """Send SIGKILL once to each; returns those found, zombies excluded."""
    spared = _own_line()
    with contextlib.ExitStack() as opened:
        found: dict[int, _Handle] = {}
        layer = [pid for pid in _all_pids() if _has_entry(pid, entry)]
        while layer:
            for pid in layer:
                # Opened before it is looked at again, so what is checked is what is killed.
                handle = opened.enter_context(_Handle(pid))
                if pid not in spared and (_has_entry(pid, entry) or _parent(pid) in found):
                    found[pid] = handle
            layer = [pid for pid in _children(layer) if pid not in found and not _is_zombie(pid)]
            layer = [pid for pid in layer if pid not in spared]
        # Only now: the children of a killed process are nobody's that we know.
        lives = {(pid, _started(pid)) for pid in found}
        for handle in found.values():
            handle.kill()
    return lives


def _own_line() -> set[int]:
    """This process, those that it descends from and its descendants."""
    line, parent = {os.getpid()}, os.getppid()
    while parent and parent not in line:
        line.add(parent)
        parent = _parent(parent) or 0
    layer = [os.getpid()]
    while layer:
        layer = [pid for pid in _children(layer) if pid not in line]
        line.update(layer)
    return line


def _has_entry(pid: int, entry: bytes) -> bool:
    return entry in _content(f"/proc/{pid}/environ").split(b"\0")


def _is_zombie(pid: int) -> bool:
    return _content(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] in ([], [b"Z"], [b"X"])


def _children(parents: Collection[int]) -> list[int]:
    if _kernel_lists_children():
        return [child for parent in parents for child in _listed_children(parent)]
    return [pid for pid in _all_pids() if _parent(pid) in parents]


def _kernel_lists_children() -> bool:
    """Whether it was built with CONFIG_PROC_CHILDREN."""
    return os.path.exists("/proc/thread-self/children")


def _listed_children(parent: int) -> list[int]:
    """The children of all threads of ``parent``; those of a thread that just ended have moved."""
    children: list[int] = []
    for thread in _entries(f"/proc/{parent}/task"):
        children += map(int, _content(f"/proc/{parent}/task/{thread}/children").split())
    return children


def _all_pids() -> list[int]:
    return [int(name) for name in _entries("/proc") if name.isdigit()]


def _parent(pid: int) -> int | None:
    """The parent's pid; None if ``pid`` is gone."""
    # The program's name, in parentheses, may itself hold blanks and parentheses.
    fields = _content(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else None


def _started(pid: int) -> bytes:
    """When it began, in the kernel's ticks; b"" if it is gone."""
    fields = _content(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return fields[19] if fields else b""


def _lives(life: _Life) -> bool:
    pid, started = life
    return started == _started(pid) and not _is_zombie(pid)


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _content(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _kill_member(pid: int, family: Collection[int]) -> None:
    """SIGKILL ``pid`` if its parent is one of ``family``: it may be another process by now."""
    # Opened first, so what is checked is what is killed, even if the pid is given anew between.
    with _Handle(pid) as handle:
        if _parent(pid) in family:
            handle.kill()


class _Handle:
    """A pidfd; or only the pid, where pidfds are forbidden (old container runtimes) or run out."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except OSError:
            self._pidfd = None

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)

    def kill(self) -> None:
        # It may just have ended, or run as somebody else and not end by us.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._pidfd is None:
                os.kill(self._pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def _reap(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return False  # No child of ours yet: its own parent lives.
