"""The kernel's own out-of-memory killer at work, in a memory cgroup that the test makes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import ProcessCluster

LIMIT = 192 * 1024 * 1024
MOUNT = Path("/sys/fs/cgroup")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """One with little memory; whoever is to be in it writes its pid to ``cgroup.procs``."""
    version_1 = (MOUNT / "memory" / "memory.limit_in_bytes").exists()
    folder = (MOUNT / "memory" if version_1 else MOUNT) / f"rallypoint-test-{uuid.uuid4().hex}"
    limit = folder / ("memory.limit_in_bytes" if version_1 else "memory.max")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        if not limit.exists():
            pytest.skip("the memory controller is not handed down here")
        limit.write_text(str(LIMIT))
        yield folder
    finally:
        folder.rmdir()


def test_a_worker_that_takes_all_memory_is_told_as_such(cgroup: Path, cluster: ProcessCluster) -> None:
    enter = ("sh", "-c", f'echo $$ > {cgroup}/cgroup.procs && exec "$@"', "sh")
    flags = ("--standalone", "--nproc-per-node", "2", cluster.worker("eat_memory.py"))
    agent = cluster.start("agent", "run", *flags, before=enter)
    assert agent.wait() == 1, agent.output
    report = agent.err.read_text().partition("Root cause: ")[2].splitlines()
    assert report[0].startswith("rank 0 (local rank 0)")
    assert report[0].endswith("SIGKILL"), report
    assert f"out-of-memory killer (cgroup /{cgroup.name}: oom_kill 0 -> 1)" in report[1]
