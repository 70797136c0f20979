"""The guard beside torchrun, as a real process; no torch is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint_agent.core.effects import SetFence
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.torch.guarding import WorkersGuard, obituary_of_torchrun
from rallypoint_agent.torch.marked import MARK_VARIABLE, kill_marked, marked_pids
from support.processes import is_alive, wait_until

MARK = f"test-{os.getpid()}"
SLEEP = "sleep 600 & setsid sleep 600 & wait"


@pytest.fixture
def guard() -> Iterator[WorkersGuard]:
    guard = WorkersGuard(MARK, obituary_of_torchrun((("127.0.0.1", 1),), "job", "incarnation", 1000))
    yield guard
    guard.close(is_known=True)


def tree() -> subprocess.Popen[bytes]:
    """A worker of three processes, one of them in a session of its own."""
    process = subprocess.Popen(["sh", "-c", SLEEP], start_new_session=True)
    wait_until(lambda: len(marked_pids(MARK)) == 3, 30, "the tree is not there")
    return process


def test_what_is_started_afterwards_is_swept(guard: WorkersGuard) -> None:
    worker = tree()
    assert guard.sweep() == []
    assert marked_pids(MARK) == []
    worker.wait()


def test_the_end_of_the_lease_ends_the_workers(guard: WorkersGuard) -> None:
    worker = tree()
    guard.fence(SetFence(boot_ms(), boot_ms()))
    worker.wait(30)
    wait_until(lambda: not marked_pids(MARK), 30, "something of the tree lives on")


def test_a_later_fence_replaces_an_earlier_one(guard: WorkersGuard) -> None:
    worker = tree()
    guard.fence(SetFence(boot_ms() + 600_000, boot_ms() + 600_000))
    guard.sweep()
    worker.wait()


def test_the_death_of_torchrun_ends_the_workers() -> None:
    code = (
        "import subprocess, sys, time\n"
        "from rallypoint_agent.torch.guarding import WorkersGuard, obituary_of_torchrun\n"
        f"WorkersGuard({MARK!r}, obituary_of_torchrun((('127.0.0.1', 1),), 'job', 'incarnation', 1000))\n"
        f"subprocess.Popen(['sh', '-c', {SLEEP!r}], start_new_session=True)\n"
        "time.sleep(600)\n"
    )
    torchrun = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: len(marked_pids(MARK)) == 3, 30, "the tree is not there")
    torchrun.kill()
    torchrun.wait()
    wait_until(lambda: not marked_pids(MARK), 30, "something of the tree lives on")


def test_a_guard_that_is_not_needed_ends(guard: WorkersGuard) -> None:
    pid = guard._process.pid
    guard.close(is_known=True)
    assert not is_alive(pid)
    assert MARK_VARIABLE not in os.environ


def test_others_are_let_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "600"], env={MARK_VARIABLE: f"{MARK}-not"})
    assert kill_marked(MARK, 1) == []
    assert other.poll() is None
    other.kill()
    other.wait()
