"""What torchrun's rendezvous flags come to: where the coordinator is, who starts it, where workers meet."""

from __future__ import annotations

import pytest

from rallypoint.model import Endpoint
from rallypoint_agent.meeting import Hosting, coordinator_port
from rallypoint_agent.options import RunOptions, UsageError, parse

HEAD = Endpoint("head", 29400)


def options(line: str, **environ: str) -> RunOptions:
    return parse([*line.split(), __file__], environ)


@pytest.mark.parametrize(
    ("line", "endpoint", "hosting"),
    [
        ("--rdzv-backend c10d --rdzv-endpoint head:29400", HEAD, Hosting.IF_NAMED),
        ("--rdzv-backend c10d --rdzv-endpoint head", HEAD, Hosting.IF_NAMED),
        ("--rdzv-backend c10d --nnodes 1 --rdzv-endpoint head", HEAD, Hosting.IF_NAMED),
        ("--rdzv-backend c10d", Endpoint("localhost", 29400), Hosting.IF_NAMED),
        ("--rdzv-backend c10d --rdzv-endpoint head --rdzv-conf is_host=1", HEAD, Hosting.HERE),
        ("--rdzv-backend c10d --rdzv-endpoint head --rdzv-conf is_host=0", HEAD, Hosting.NEVER),
        ("--rdzv-backend static --rdzv-endpoint head --node-rank 0", HEAD, Hosting.HERE),
        ("--rdzv-backend static --rdzv-endpoint head --node-rank 1", HEAD, Hosting.IF_NAMED),
        ("--master-addr head --node-rank 0", HEAD, Hosting.HERE),
        ("--master-addr head --node-rank 1", HEAD, Hosting.IF_NAMED),
        ("--master-addr head", HEAD, Hosting.IF_NAMED),
        ("--master-addr head --node-rank 0 --rdzv-conf is_host=false", HEAD, Hosting.NEVER),
        ("--master-addr head --master-port 29501 --node-rank 1", Endpoint("head", 29401), Hosting.IF_NAMED),
        ("--master-port 29501 --node-rank 1", Endpoint("127.0.0.1", 29401), Hosting.IF_NAMED),
        ("--rdzv-backend static", Endpoint("127.0.0.1", 29400), Hosting.IF_NAMED),
        ("--node-rank 1", Endpoint("127.0.0.1", 29400), Hosting.IF_NAMED),
        ("--rdzv-id j --rdzv-endpoint head", HEAD, Hosting.NEVER),
        ("--rdzv-id j --coordinator head --node-rank 0 --master-addr head", HEAD, Hosting.NEVER),
    ],
)
def test_the_coordinator_is_there_and_is_started_by(line: str, endpoint: Endpoint, hosting: Hosting) -> None:
    parsed = options(f"--nnodes 2 {line}")
    assert (parsed.coordinators, parsed.hosting) == ((endpoint,), hosting)


def test_several_coordinators_are_started_by_hand() -> None:
    parsed = options("--nnodes 2 --rdzv-backend c10d --rdzv-id j --rdzv-endpoint head,spare")
    assert (len(parsed.coordinators), parsed.hosting, parsed.connect_timeout_ms) == (2, Hosting.NEVER, 60_000)


@pytest.mark.parametrize(
    "line",
    ["", "--standalone", "--rdzv-backend c10d --rdzv-endpoint localhost:0", "--master-port 29500", "--node-rank 0"],
)
def test_a_node_alone_has_a_coordinator_of_its_own(line: str) -> None:
    parsed = options(line)
    assert (parsed.coordinators, parsed.hosting) == ((), Hosting.NEVER)
    assert parsed.job != options(line).job


@pytest.mark.parametrize(
    ("line", "addr", "port"),
    [
        ("--master-addr head --master-port 30000 --node-rank 0", "head", 30000),
        ("--master-addr head --node-rank 0", "head", 29500),
        ("--node-rank 0", "127.0.0.1", 29500),
        ("--master-addr head --master-port 30000 --node-rank 1", None, None),
        ("--master-addr head --master-port 30000", None, 30000),
        ("--master-addr head --node-rank 0 --port-range 31000-31009", "head", None),
        ("--rdzv-backend c10d --rdzv-endpoint head:1 --master-addr head --master-port 1", None, None),
        ("--rdzv-backend static --rdzv-endpoint head:1 --master-addr head --master-port 1", None, None),
        ("--rdzv-id j --coordinator c --master-addr head --master-port 1 --node-rank 3", "head", 1),
    ],
)
def test_where_workers_meet_if_rank_0_is_here(line: str, addr: str | None, port: int | None) -> None:
    parsed = options(f"--nnodes 2 {line}")
    assert (parsed.master_addr, parsed.master_port) == (addr, port)


def test_what_torchrun_ignores_is_told() -> None:
    line = "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint head --master-port 29400"
    assert options(line).ignored_flags == ("--master-port",)
    assert options("--nnodes 2 --master-addr head --node-rank 0").ignored_flags == ()


def test_torchruns_lines_have_torchruns_default_name() -> None:
    assert options("--nnodes 2 --rdzv-backend c10d --rdzv-endpoint head").job == "none"
    assert options("--nnodes 2 --master-addr head --node-rank 1").job == "none"
    assert options("--nnodes 2 --master-addr head --node-rank 1 --rdzv-id j").job == "j"


@pytest.mark.parametrize(
    ("line", "least"),
    [
        ("--master-addr head --node-rank 0", 4),
        ("--rdzv-backend static --rdzv-endpoint head", 4),
        ("--rdzv-backend c10d --rdzv-endpoint head", 2),
    ],
)
def test_a_static_job_needs_all_of_its_nodes(line: str, least: int) -> None:
    spec = options(f"--nnodes 2:4 {line}").job_spec
    assert (spec.min_nodes, spec.max_nodes) == (least, 4)


@pytest.mark.parametrize(
    ("line", "ms"),
    [
        ("--master-addr head --node-rank 1", 600_000),
        ("--master-addr head --node-rank 1 --join-timeout 15m", 900_000),
        ("--master-addr head --node-rank 1 --join-timeout 10s", 60_000),
        ("--master-addr head --node-rank 1 --connect-timeout 5s", 5_000),
        ("--rdzv-backend c10d --rdzv-endpoint head --rdzv-conf is_host=0", 600_000),
        ("--rdzv-id j --rdzv-endpoint head", 60_000),
    ],
)
def test_a_coordinator_that_agents_start_is_looked_for_as_long_as_nodes_are(line: str, ms: int) -> None:
    assert options(f"--nnodes 2 {line}").connect_timeout_ms == ms


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--nnodes 2", "several nodes need a coordinator: give --coordinator HOST:PORT, or --master-addr"),
        ("--nnodes 2 --rdzv-backend c10d --rdzv-endpoint localhost:0", "port 0 is any free port"),
        ("--nnodes 2 --rdzv-id j --rdzv-endpoint localhost:0", "a port must be 1 to 65535"),
        ("--nnodes 2 --rdzv-endpoint head", "several nodes need the job's name: give --rdzv-id"),
    ],
)
def test_what_makes_no_sense(line: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        options(line)


def test_the_variables_of_a_training_operator() -> None:
    environ = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "job-master-0", "PET_MASTER_PORT": "23456"}
    parsed = parse([__file__], environ)
    assert parsed.coordinators == (Endpoint("job-master-0", 23356),)
    assert (parsed.node_rank, parsed.job) == (1, "none")


def test_the_coordinator_never_has_the_workers_port() -> None:
    for master_port in range(1, 65536):
        port = coordinator_port(master_port)
        assert 1 <= port <= 65535
        assert abs(port - master_port) == 100
    assert coordinator_port(29500) == 29400, "the default of both"
    assert coordinator_port(80) == 180


def test_two_static_jobs_of_a_host_have_two_coordinators() -> None:
    first, second = (options(f"--nnodes 2 --master-port {port} --node-rank 0") for port in (29500, 29501))
    assert first.coordinators != second.coordinators
    assert second.coordinators[0].port != first.master_port
