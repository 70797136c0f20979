"""Finding and killing a tree, on systems that lack one thing or another, too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint_agent.keeper import process_tree
from support.processes import MARK_VARIABLE, is_alive, new_mark, pids_with_mark, wait_until

ODD_NAME = ") 1 ("
"""It stands between parentheses in /proc/PID/stat, where others may get lost."""


@pytest.fixture
def mark() -> Iterator[str]:
    mark = new_mark()
    yield mark
    for pid in pids_with_mark(mark):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def family(mark: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The root of a tree of four: a sleep; and a shell, in a session of its own, with a sleep."""
    odd = tmp_path / ODD_NAME
    odd.symlink_to(shutil.which("sleep") or "sleep")
    script = f"'{odd}' 1000 & setsid sh -c 'sleep 1000 & wait' & wait"
    with subprocess.Popen(["sh", "-c", script], env=os.environ | {MARK_VARIABLE: mark}) as root:
        try:
            wait_until(lambda: names(mark) == [ODD_NAME, "sh", "sh", "sleep"], message="the tree is complete")
            yield root
        finally:
            root.kill()


def names(mark: str) -> list[str]:
    return sorted(Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids_with_mark(mark))


def session_leader(mark: str) -> int:
    [leader] = [pid for pid in pids_with_mark(mark) if os.getsid(pid) == pid]
    return leader


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Whom the tree would kill. Nobody ends, so nobody is orphaned while the test looks."""
    killed: list[int] = []
    monkeypatch.setattr(process_tree, "_kill_member", lambda pid, family: killed.append(pid))
    return killed


@pytest.fixture(params=["listings of children", "no such listings"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no such listings":
        monkeypatch.setattr(process_tree, "_kernel_lists_children", lambda: False)


@pytest.fixture(params=["pidfds", "no pidfds"])
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(pid: int) -> int:
        raise PermissionError

    if request.param == "no pidfds":
        monkeypatch.setattr(os, "pidfd_open", forbidden)


@pytest.mark.usefixtures("kernel")
def test_all_descendants_are_found_but_not_the_root(
    family: subprocess.Popen[bytes], mark: str, killed: list[int]
) -> None:
    found = process_tree.kill_descendants(family.pid)
    assert set(found) == pids_with_mark(mark) - {family.pid}
    assert found == killed
    assert found.index(session_leader(mark)) < 2, "parents come before children"


@pytest.mark.usefixtures("kernel")
def test_a_kept_subtree_is_spared(family: subprocess.Popen[bytes], mark: str, killed: list[int]) -> None:
    process_tree.kill_descendants(family.pid, keep={session_leader(mark)})
    assert [Path(f"/proc/{pid}/comm").read_text().strip() for pid in killed] == [ODD_NAME]


@pytest.mark.usefixtures("runtime")
def test_only_a_child_of_the_family_is_killed(family: subprocess.Popen[bytes], mark: str) -> None:
    """A pid that was looked up may belong to a stranger by now."""
    pid = session_leader(mark)
    process_tree._kill_member(pid, {os.getpid()})
    assert is_alive(pid)
    process_tree._kill_member(pid, {family.pid})
    wait_until(lambda: not is_alive(pid))


def test_a_process_that_is_gone_has_no_descendants() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert process_tree.kill_descendants(process.pid) == []
    process_tree._kill_member(process.pid, {os.getpid()})


def test_sweep_returns_what_does_not_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "kill_descendants", lambda root, keep: [1])
    assert process_tree.sweep((), timeout=0.01) == [1]


def test_the_pace_slows_down_and_picks_up() -> None:
    pace = process_tree.Pace()
    pauses = []
    for _ in range(12):
        pace.looked(now_ns=0)
        pauses.append(pace.next_ns)
    assert pauses[:3] == [1_000_000, 2_000_000, 4_000_000]
    assert pauses[-1] == process_tree.LONGEST_PAUSE_NS
    pace.progressed(now_ns=0)
    assert pace.next_ns == process_tree.FIRST_PAUSE_NS
