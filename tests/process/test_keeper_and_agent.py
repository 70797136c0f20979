"""What the keeper does about its agent's end, and the agent about its keeper's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rallypoint_agent
from support.processes import MARK_VARIABLE, is_alive, new_mark, pids_with_mark, wait_until

HERE = Path(__file__).parent
SOURCES = Path(rallypoint_agent.__file__).parent.parent


class Stage:
    """An agent stand-in, run as a process of its own, and what it and its obituary log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = new_mark()
        self.log = folder / "log"
        self.log.touch()
        self.bystander_mark = new_mark()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, workers: int = 2, **plan: Any) -> None:
        """Run the stand-in until the families of all its workers are complete."""
        plan |= {
            "log": str(self.log),
            "env": self._env(self.mark),
            "bystander_env": self._env(self.bystander_mark),
            "obituary_env": {"PYTHONPATH": str(HERE.parent)},
            "workers": [self._worker(rank) for rank in range(workers)],
        }
        (self.folder / "plan").write_text(json.dumps(plan))
        argv = [sys.executable, str(HERE / "agent_stand_in.py"), str(self.folder / "plan")]
        path = os.pathsep.join([str(SOURCES), str(HERE.parent)])
        self._process = subprocess.Popen(argv, env=dict(os.environ) | {"PYTHONPATH": path})
        wait_until(lambda: len(self.families()) == workers, message="the families are complete")

    @property
    def agent(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def keeper(self) -> int:
        [[pid]] = self.logged("Keeper")
        return int(pid)

    def families(self) -> list[Path]:
        return list(self.folder.glob("ready-*"))

    def obituary(self) -> list[str]:
        return [sys.executable, str(HERE / "obituary_witness.py"), self.mark, str(self.log)]

    def logged(self, what: str) -> list[list[Any]]:
        lines = self.log.read_text().splitlines(keepends=True)
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return [rest for name, *rest in entries if name == what]

    def wait_for_log(self, what: str) -> list[Any]:
        return wait_until(lambda: self.logged(what), message=f"{what} is logged")[0]

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.agent, number)

    def wait_for_end(self) -> None:
        """Until no worker's process is alive, nor the keeper."""
        wait_until(lambda: not pids_with_mark(self.mark), message="the tree is gone")
        wait_until(lambda: not is_alive(self.keeper), message="the keeper is gone")

    def clean_up(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for mark in (self.mark, self.bystander_mark):
            for pid in pids_with_mark(mark):
                os.kill(pid, signal.SIGKILL)

    def _env(self, mark: str) -> dict[str, str]:
        return dict(os.environ) | {MARK_VARIABLE: mark}

    def _worker(self, rank: int) -> list[str]:
        script = str(HERE / "tree_worker.py")
        ready = str(self.folder / f"ready-{rank}")
        return [sys.executable, "-S", "-I", script, ready, "ignore-term"]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    try:
        yield stage
    finally:
        stage.clean_up()


def test_nothing_outlives_an_agent_that_is_killed(stage: Stage) -> None:
    stage.start()
    assert len(pids_with_mark(stage.mark)) == 6
    stage.kill()
    stage.wait_for_end()


def test_the_obituary_runs_when_nothing_is_alive(stage: Stage) -> None:
    stage.start(obituary=stage.obituary())
    stage.kill()
    assert stage.wait_for_log("Obituary") == [[]]
    stage.wait_for_end()
    assert len(stage.logged("Obituary")) == 1


def test_an_obituary_that_cannot_run_is_told_and_no_more(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.start(obituary=["/no/such/program"])
    stage.kill()
    stage.wait_for_end()
    assert "no obituary: cannot run '/no/such/program'" in capfd.readouterr().err


def test_after_a_clean_close_there_is_no_obituary(stage: Stage) -> None:
    stage.start(obituary=stage.obituary(), close_on_term=True)
    stage.kill(signal.SIGTERM)
    stage.wait_for_log("Closed")
    stage.wait_for_end()
    assert stage.logged("Obituary") == []


def test_the_fence_holds_while_the_agent_is_stopped(stage: Stage) -> None:
    stage.start(fence_on_usr1=0.5)
    stage.kill(signal.SIGUSR1)
    stage.wait_for_log("Armed")
    stage.kill(signal.SIGSTOP)
    wait_until(lambda: not pids_with_mark(stage.mark), message="the fence struck")
    assert is_alive(stage.keeper)
    stage.kill(signal.SIGCONT)
    assert stage.wait_for_log("Gone") == ["Gone(round=0, fenced=True)"]


def test_the_agents_end_is_seen_behind_a_process_that_holds_its_socket(stage: Stage) -> None:
    stage.start(hold_socket=True)
    [holder] = stage.wait_for_log("Holder")
    stage.kill()
    try:
        stage.wait_for_end()
        assert is_alive(holder)
    finally:
        os.kill(holder, signal.SIGKILL)


def test_the_agent_sweeps_after_its_keeper_and_spares_its_own(stage: Stage) -> None:
    stage.start(bystander=["sh", "-c", "sleep 1000 & wait"])
    stage.wait_for_log("Bystander")
    wait_until(lambda: len(pids_with_mark(stage.bystander_mark)) == 2)
    os.kill(stage.keeper, signal.SIGKILL)
    stage.wait_for_log("Swept")
    assert pids_with_mark(stage.mark) == set()
    assert len(pids_with_mark(stage.bystander_mark)) == 2
    assert stage.logged("KeeperDied") == [["KeeperDied(exit_code=-9)"]]


def test_an_agent_without_standard_streams_has_a_keeper_all_the_same(stage: Stage) -> None:
    stage.start(close_streams=True, obituary=stage.obituary())
    stage.kill()
    assert stage.wait_for_log("Obituary") == [[]]
