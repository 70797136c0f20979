"""The example of an agent that defines torch's four methods only, on a real coordinator."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint.v1 import types_pb2
from support.cluster import ProcessCluster
from support.processes import MARK_VARIABLE

EXAMPLE = Path(__file__).parents[2] / "examples" / "remote_agent.py"
PREFIX = "env -u RANK sh -c"
"""As ssh: it passes nothing on and is given one line."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


def run(cluster: ProcessCluster, script: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(EXAMPLE), cluster.address, "job", "node-a", "2", PREFIX, "sh", "-c", script]
    env = {**os.environ, MARK_VARIABLE: cluster.mark}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_it_runs_workers_through_a_prefix(cluster: ProcessCluster) -> None:
    cluster.coordinator()
    ended = run(cluster, 'echo "rank $RANK of $WORLD_SIZE at $MASTER_ADDR:$MASTER_PORT, it\'s quoted"')
    assert ended.returncode == 0, ended.stderr
    lines = sorted(line.partition(" at ")[0] for line in ended.stdout.splitlines())
    assert lines == ["rank 0 of 2", "rank 1 of 2"]
    assert cluster.job("job").state == types_pb2.JOB_STATE_SUCCEEDED


def test_a_failure_restarts_all_of_them(cluster: ProcessCluster, tmp_path: Path) -> None:
    cluster.coordinator()
    first = tmp_path / "first"
    ended = run(cluster, f'[ -e {first}$RANK ] && exit 0; : > {first}$RANK; [ "$RANK" = 1 ] && exit 7; sleep 600')
    assert ended.returncode == 0, ended.stderr
    job = cluster.job("job")
    assert (job.state, job.restart_count) == (types_pb2.JOB_STATE_SUCCEEDED, 1)
