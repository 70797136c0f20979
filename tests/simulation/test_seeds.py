"""Clusters on simulated time: every seed is a fleet, a job and a series of faults, judged by the oracles."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.options import FaultKind
from simulation.run import replay_command, with_fault
from simulation.simulation import run_seed
from simulation.transcript import Transcript

SEEDS = 300
CHUNK = 25
LOSSES_BASE, LOSSES_SEEDS = 1_000, 50
FAILED_ONCE = Path(__file__).with_name("seeds.txt")


def failed_once() -> list[int]:
    """One a line, with what was wrong after a ``#``."""
    lines = (line.partition("#")[0].strip() for line in FAILED_ONCE.read_text().splitlines())
    return [int(line) for line in lines if line]


def transcript_digest(seed: int) -> str:
    text = io.StringIO()
    run_seed(seed, Transcript(text))
    return hashlib.sha256(text.getvalue().encode()).hexdigest()


def demand_no_violation(seed: int) -> None:
    violation = run_seed(seed).violation
    if violation is not None:
        pytest.fail(f"seed {seed}: {violation}\n{replay_command(seed)}", pytrace=False)


@pytest.mark.parametrize("base", range(0, SEEDS, CHUNK))
def test_seeds(base: int) -> None:
    for seed in range(base, base + CHUNK):
        demand_no_violation(seed)


def test_seeds_that_lose_the_journal() -> None:
    for seed in range(LOSSES_BASE, LOSSES_BASE + LOSSES_SEEDS):
        violation = run_seed(seed, options=with_fault(seed, FaultKind.LOST_JOURNAL)).violation
        if violation is not None:
            pytest.fail(f"seed {seed}: {violation}\n{replay_command(seed, FaultKind.LOST_JOURNAL)}", pytrace=False)


@pytest.mark.parametrize("seed", failed_once())
def test_a_seed_that_failed_once_stays_right(seed: int) -> None:
    demand_no_violation(seed)


def test_a_run_is_a_function_of_its_seed_whatever_the_hash_seed() -> None:
    """C7: nothing is ever done in the order of a set."""
    seeds = range(1_000, 1_008)
    code = f"from simulation.test_seeds import transcript_digest as d; print(*map(d, {list(seeds)}))"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code]
        printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        assert printed.split() == [transcript_digest(seed) for seed in seeds]
