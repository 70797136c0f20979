"""A whole agent under a coordinator of a later release: what it does not know changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import ProcessCluster
from support.fake_coordinator import FakeCoordinator
from support.later_coordinator import LaterCoordinator


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    fake = FakeCoordinator()
    yield fake
    fake.close()


@pytest.mark.parametrize(("outcome", "status"), [("SUCCEEDED", 0), ("ADDED_LATER", 1)])
def test_an_agent_does_what_it_knows_and_keeps_its_state(
    coordinator: FakeCoordinator, tmp_path: Path, outcome: str, status: int
) -> None:
    with ProcessCluster(tmp_path) as cluster:
        cluster.address = "{}:{}".format(*coordinator.endpoint)
        agent = cluster.agent("node-a", "--rdzv-id", "job", "--nproc-per-node", "1", cluster.worker("wait.py"))
        LaterCoordinator(coordinator).lead(outcome)
        assert agent.wait() == status
        assert "a directive of a kind not known here" in agent.output
