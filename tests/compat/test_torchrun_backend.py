"""Stock torchrun, real torch and gloo, on our coordinator: ``--rdzv-backend=rallypoint``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rallypoint.security.client import ClientSecurity
from rallypoint.v1 import job_service_pb2, types_pb2
from rallypoint_coordinator.security.policy import Role
from support.all_reduce import WORKER, kill_worker, wait_up
from support.certificates import Authority
from support.cluster import Process, ProcessCluster
from support.processes import MARK_VARIABLE, is_alive, wait_until
from support.tokens import certificate_line, grant, token, token_line, write_lines

pytest.importorskip("torch")


class Fleet:
    """A coordinator, and torchruns that point at it."""

    def __init__(self, cluster: ProcessCluster, *coordinator_args: str) -> None:
        self.cluster = cluster
        self.stop_file = cluster.folder / "stop"
        cluster.coordinator("--store", "memory", *coordinator_args)

    def torchrun(self, name: str, nnodes: str, *args: str, conf: str = "last_call_timeout=1s", **more: str) -> Process:
        argv = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=rallypoint"]
        argv += [f"--rdzv-endpoint={self.cluster.address}", "--rdzv-id=job", f"--nnodes={nnodes}"]
        argv += [f"--rdzv-conf=node_name={name},lease_ttl=8s,{conf}", "--local-addr=127.0.0.1"]
        env = {**os.environ, MARK_VARIABLE: self.cluster.mark, "LOGLEVEL": "INFO", **more}
        argv += [*args, WORKER, str(self.stop_file)]
        process = Process(name, argv, self.cluster.folder, env)
        self.cluster.processes.append(process)
        return process

    def succeed(self, torchruns: list[Process]) -> None:
        self.stop_file.touch()
        assert [torchrun.wait() for torchrun in torchruns] == [0] * len(torchruns)
        assert self.cluster.job("job").state == types_pb2.JOB_STATE_SUCCEEDED


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ProcessCluster(tmp_path) as cluster:
        yield Fleet(cluster)


def test_a_failed_worker_brings_everybody_into_a_fresh_round(fleet: Fleet) -> None:
    torchruns = [fleet.torchrun(name, "2", "--max-restarts=1") for name in "ab"]
    before = wait_up(torchruns, world_size=2)
    kill_worker(before[1])
    after = wait_up(torchruns, world_size=2, after=1)
    assert {up[4] for up in before}.isdisjoint(up[4] for up in after), "a round's store is its own"
    fleet.succeed(torchruns)
    assert fleet.cluster.job("job").restart_count == 1


def test_a_joining_node_is_taken_in_without_a_failure(fleet: Fleet) -> None:
    pair = [fleet.torchrun(name, "2:3") for name in "ab"]
    wait_up(pair, world_size=2)
    trio = [*pair, fleet.torchrun("c", "2:3")]
    wait_up(trio, world_size=3)
    fleet.succeed(trio)
    assert fleet.cluster.job("job").restart_count == 0


def test_a_signalled_torchrun_is_missed_at_once(fleet: Fleet) -> None:
    trio = [fleet.torchrun(name, "2:3") for name in "abc"]
    wait_up(trio, world_size=3)
    trio[0].signal(signal.SIGTERM)
    trio[0].wait()
    wait_up(trio[1:], world_size=2)
    fleet.succeed(trio[1:])


def test_a_killed_torchrun_is_missed_at_once_and_its_worker_with_it(fleet: Fleet) -> None:
    trio = [fleet.torchrun(name, "2:3", "--max-restarts=3") for name in "abc"]
    ups = wait_up(trio, world_size=3)
    trio[0].signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(int(ups[0][3])), 30, "its worker lives on")
    wait_up(trio[1:], world_size=2)
    fleet.succeed(trio[1:])


def test_used_up_restarts_end_the_job_for_all(fleet: Fleet) -> None:
    pair = [fleet.torchrun(name, "2", "--max-restarts=0") for name in "ab"]
    kill_worker(wait_up(pair, world_size=2)[0])
    assert [torchrun.wait() for torchrun in pair] == [1, 1]
    job = fleet.cluster.job("job")
    assert job.state == types_pb2.JOB_STATE_CANCELLED
    assert "no restart of its own left" in job.outcome.message


def test_an_unknown_setting_is_refused_by_its_name(fleet: Fleet) -> None:
    torchrun = fleet.torchrun("a", "1", conf="lease_tll=8s")
    assert torchrun.wait() == 1
    assert "lease_tll is not known to the rallypoint backend" in torchrun.output


def test_workers_inherit_nothing_of_how_our_grpc_is_set_up(fleet: Fleet) -> None:
    """A training script may have a gRPC of its own."""
    torchrun = fleet.torchrun("a", "1")
    (up,) = wait_up([torchrun], world_size=1)
    theirs = [name for name in Path(f"/proc/{up[3]}/environ").read_bytes().split(b"\0") if name.startswith(b"GRPC_")]
    ours = [name for name in os.environ if name.startswith("GRPC_")]
    assert sorted(name.partition(b"=")[0].decode() for name in theirs) == sorted(ours)
    fleet.succeed([torchrun])


def test_over_mutual_tls_with_a_token_that_the_workers_do_not_get(tmp_path: Path) -> None:
    """The rendezvous, the guard's obituary and the closing of the job each show who they are."""
    ca = Authority(tmp_path / "ca")
    server, agent, watcher = ca.issue(), ca.issue("agent", "agent"), ca.issue("watcher", "watcher")
    mine = token_line(grant("job-agent", Role.AGENT, job="job"), 1)
    tokens = write_lines(tmp_path / "tokens", [mine, certificate_line(grant("watcher", Role.READ), "watcher")])
    door = ("--tls-cert", str(server.cert), "--tls-key", str(server.key), "--tls-client-ca", str(ca.cert))
    shown = {
        "RALLYPOINT_TLS_CA": str(ca.cert),
        "RALLYPOINT_TLS_CERT": str(agent.cert),
        "RALLYPOINT_TLS_KEY": str(agent.key),
        "RALLYPOINT_TOKEN": token(1),
    }
    security = ClientSecurity("", str(ca.cert), str(watcher.cert), str(watcher.key))
    with ProcessCluster(tmp_path, security=security) as cluster:
        fleet = Fleet(cluster, *door, "--token-file", str(tokens))
        trio = [fleet.torchrun(name, "2:3", "--max-restarts=0", **shown) for name in "abc"]
        for up in wait_up(trio, world_size=3):
            assert b"RALLYPOINT_TOKEN=" not in Path(f"/proc/{up[3]}/environ").read_bytes()
        trio[0].signal(signal.SIGKILL)
        gone = job_service_pb2.NODE_STATE_GONE
        wait_until(lambda: cluster.nodes("job")["a"].state == gone, 30, "the guard's obituary did not come")
        kill_worker(wait_up(trio[1:], world_size=2)[0])
        assert [torchrun.wait() for torchrun in trio[1:]] == [1, 1]
        assert cluster.job("job").state == types_pb2.JOB_STATE_CANCELLED
        assert token(1) not in cluster.transcript()
