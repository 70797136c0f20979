"""Real torch under ``rallypoint run``: gloo, the RPC framework, functions."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint.model import AgentPhase, JobState, Observed
from rallypoint.v1 import types_pb2
from rallypoint_agent.api import WorkerSpec
from rallypoint_agent.local_elastic_agent import LocalElasticAgent
from rallypoint_agent.logs import DefaultLogsSpecs
from support.all_reduce import WORKER, kill_worker, wait_up
from support.cluster import Process, ProcessCluster
from support.fake_link import FakeLink

pytest.importorskip("torch")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        cluster.coordinator()
        yield cluster


def agent(cluster: ProcessCluster, name: str, *args: str) -> Process:
    flags = ("--rdzv-id", "job", "--last-call-timeout", "1s", "--max-restarts", "1")
    return cluster.agent(name, *flags, *args, TMPDIR=str(cluster.folder))


def test_gloo_comes_up_again_whatever_happened(cluster: ProcessCluster) -> None:
    """After a failure, with one node more, and without the one where all had met."""
    stop_file = cluster.folder / "stop"
    a, b = pair = [agent(cluster, name, "--nnodes", "2:3", WORKER, str(stop_file)) for name in ("node-a", "node-b")]
    first = wait_up(pair, world_size=2)
    kill_worker(first[1])
    second = wait_up(pair, world_size=2, after=1)
    c = agent(cluster, "node-c", "--nnodes", "2:3", WORKER, str(stop_file))
    third = wait_up([a, b, c], world_size=3)
    (leader,) = (agent for agent, up in zip((a, b, c), third, strict=True) if up[1] == "0")
    leader.signal(signal.SIGKILL)
    left = [agent for agent in (a, b, c) if agent is not leader]
    fourth = wait_up(left, world_size=2, after=1)
    stores = [{up[4] for up in ups} for ups in (first, second, third, fourth)]
    assert [len(store) for store in stores] == [1, 1, 1, 1], "all met at one place"
    assert len(set.union(*stores)) == 4, "a round's store is its own"
    stop_file.touch()
    assert [agent.wait() for agent in left] == [0, 0]
    job = cluster.job("job")
    assert (job.state, job.round, job.restart_count) == (types_pb2.JOB_STATE_SUCCEEDED, 3, 1)


def test_torchs_rpc_framework_and_a_store_of_the_scripts_own(cluster: ProcessCluster) -> None:
    worker = str(Path(__file__).parent / "workers" / "call.py")
    pair = [agent(cluster, name, "--nnodes", "2", worker) for name in ("node-a", "node-b")]
    assert [agent.wait() for agent in pair] == [0, 0], cluster.transcript()
    said = "\n".join(agent.out.read_text() for agent in pair)
    calls = {tuple(map(int, call)) for call in re.findall(r"rank (\d) has called rank (\d) in round (\d)", said)}
    assert calls >= {(1, 0, 0), (0, 1, 1), (1, 0, 1)}
    assert sorted(re.findall(r"rank \d counts 2", said)) == ["rank 0 counts 2", "rank 1 counts 2"]


def sum_of_ranks(scale: float) -> float:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    total = torch.tensor([dist.get_rank() * scale])
    dist.all_reduce(total)
    dist.destroy_process_group()
    return float(total.item())


def test_a_function_returns_what_its_ranks_computed() -> None:
    def one_round(link: FakeLink, observed: Observed) -> None:
        if observed.phase is AgentPhase.READY and observed.offer and observed.round < 0:
            link.run_round(0, offer_id=observed.offer.offer_id, world_size=2, endpoint=observed.offer.endpoint)
        elif not observed.phase.may_have_workers or observed.phase is AgentPhase.SUCCEEDED:
            link.decide(JobState.SUCCEEDED)

    spec = WorkerSpec("default", 2, FakeLink(one_round), entrypoint=sum_of_ranks, args=(10.0,), local_addr="127.0.0.1")
    assert LocalElasticAgent(spec, DefaultLogsSpecs()).run().return_values == {0: 10.0, 1: 10.0}
