"""A short run of random faults, and that a run can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from chaos import scene as phases
from chaos.blows import kill_worker
from chaos.faults import FAULTS, NONE, Fault
from chaos.fleet import NODES, Fleet, Wrong
from chaos.scene import Scene
from support.cluster import ProcessCluster
from support.processes import MARK_VARIABLE

TESTS = str(Path(__file__).parents[1])


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ProcessCluster(tmp_path) as cluster:
        fleet = Fleet(cluster)
        fleet.start_agents(*NODES)
        yield fleet


@pytest.mark.timeout(600)
def test_ten_faults_in_a_row() -> None:
    command = [sys.executable, "-m", "chaos.run", "--faults", "10", "--quick", "--seed", "10"]
    env = {**os.environ, "PYTHONPATH": TESTS}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "10 faults, nothing wrong" in done.stdout


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_what_a_fault_costs_is_checked(fleet: Fleet) -> None:
    cheap = Fault(phases.running, "cheap", kill_worker, charged=0)
    with pytest.raises(Wrong, match="cheap, running spent 1 restarts instead of 0"):
        cheap.play(Scene(fleet, Random(0)))
    unnoticed = Fault(phases.running, "unnoticed", kill_worker, charged=1, rounds=NONE)
    with pytest.raises(Wrong, match="unnoticed, running led from round 1 to round 2"):
        unnoticed.play(Scene(fleet, Random(0)))
    nothing = Fault(phases.running, "nothing", lambda scene: lambda: None)
    with pytest.raises(Wrong, match="nothing, running led from round 2 to round 2"):
        nothing.play(Scene(fleet, Random(0)))


def test_a_process_too_many_is_noticed(fleet: Fleet) -> None:
    fleet.wait_healthy()
    env = {**os.environ, MARK_VARIABLE: fleet.cluster.mark}
    with subprocess.Popen(["sleep", "infinity"], env=env) as orphan:
        try:
            with pytest.raises(AssertionError, match=rf"orphans \{{{orphan.pid}\}}"):
                fleet.wait_healthy(within_s=2)
        finally:
            orphan.kill()
