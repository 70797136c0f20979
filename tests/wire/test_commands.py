"""The commands against a coordinator in this process: each on success and on what goes wrong."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rallypoint import __version__
from rallypoint.commands import connection, entry, exits
from rallypoint.model import AgentPhase, Observed, WorkerFailure
from rallypoint.security.server_tls import ServerCertificate
from rallypoint.v1 import job_service_pb2 as pb
from rallypoint.v1 import types_pb2
from rallypoint_coordinator.security.policy import Role
from rallypoint_coordinator.security.token_file import TokenFile
from rallypoint_coordinator.server.guard import Guard
from rallypoint_coordinator.server.server import Server
from rallypoint_coordinator.store.memory import MemoryJournal
from support.certificates import Authority
from support.ports import free_range
from support.tcp_proxy import TcpProxy
from support.tokens import grant, token, token_line, write_lines
from support.wire_client import Coordinator, WireAgent, hello, running_coordinator

Command = Callable[[Sequence[str]], int]


class Said(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Runs commands beside the coordinator: they block."""

    def __init__(self, capsys: pytest.CaptureFixture[str], coordinator: Coordinator) -> None:
        self._capsys = capsys
        self.coordinator = coordinator

    async def __call__(self, command: Command, *argv: str, at: str = "") -> Said:
        where = ("--coordinator", at or str(self.coordinator.address))
        status = await asyncio.to_thread(command, [*argv, *where])
        return Said(status, *self._capsys.readouterr())


@pytest.fixture
async def shell(capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Shell]:
    async with running_coordinator() as coordinator:
        yield Shell(capsys, coordinator)


async def running_pair(coordinator: Coordinator) -> list[WireAgent]:
    agents = [WireAgent(coordinator), WireAgent(coordinator)]
    await agents[0].attach()
    await agents[1].attach(hello("node-b"))
    for agent in agents:
        await agent.run()
    return agents


async def job_of(coordinator: Coordinator) -> pb.Job:
    job: pb.Job = (await coordinator.jobs.GetJob(pb.GetJobRequest(name="jobs/train"))).job
    return job


async def test_jobs(shell: Shell) -> None:
    assert (await shell(entry.jobs)).out == "JOB  STATE  SINCE  ROUND  RESTARTS  NODES  WORKERS  WHY\n"
    agents = await running_pair(shell.coordinator)
    said = await shell(entry.jobs)
    assert (said.status, said.err) == (exits.OK, "")
    _, line = said.out.splitlines()
    words = line.split()
    assert (words[:2], words[3:7]) == (["train", "RUNNING"], ["0", "0/0", "2", "4"])
    assert [job["name"] for job in (await shell(entry.jobs, "-o", "json")).json["jobs"]] == ["jobs/train"]
    del agents


async def test_jobs_in_some_states(shell: Shell) -> None:
    agents = [*await running_pair(shell.coordinator), WireAgent(shell.coordinator)]
    await agents[-1].attach(hello(job="another"))

    async def listed(*argv: str) -> list[str]:
        return [job["name"] for job in (await shell(entry.jobs, "-o", "json", *argv)).json["jobs"]]

    assert await listed("--state", "Running") == ["jobs/train"]
    assert await listed("--state", "failed, gathering") == ["jobs/another"]
    assert await listed(*["--state", "gathering"] * 40, "--state", "running") == ["jobs/another", "jobs/train"]
    assert await listed("--state", "stopping") == []
    del agents


async def test_cluster(shell: Shell) -> None:
    agents = await running_pair(shell.coordinator)
    said = await shell(entry.cluster)
    assert (said.status, said.err) == (exits.OK, "")
    told = dict(line.split(maxsplit=1) for line in said.out.splitlines() if line.strip())
    assert told["state"] == "SERVING"
    assert told["jobs"] == "1: 1 RUNNING"
    assert told["agents"] == "2, with 2 streams open"
    assert told["coordinator"].startswith(f"{__version__}, protocol 1, up for ")
    assert told["listens"] == f"on    {shell.coordinator.address}"
    assert told["limits"].split() == ["message_bytes", "4,194,304"]
    assert told["retained_time"] == "30 days"
    shown = (await shell(entry.cluster, "-o", "json")).json["cluster"]
    assert shown["counts"]["jobs"] == [{"state": "JOB_STATE_RUNNING", "count": "1"}]
    del agents


async def test_versions_of_both(shell: Shell) -> None:
    said = await shell(entry.version)
    assert (said.status, said.err) == (exits.OK, "")
    assert said.out == f"rallypoint {__version__}\ncoordinator {__version__}, protocol 1\n"
    shown = (await shell(entry.version, "-o", "json")).json
    assert (shown["client_version"], shown["cluster"]["coordinator_version"]) == (__version__, __version__)


async def test_lists_are_whole(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PAGE_SIZE", 2)
    names = [f"job-{number}" for number in range(5)]
    agents = [WireAgent(shell.coordinator) for _ in names]
    for agent, name in zip(agents, names, strict=True):
        await agent.attach(hello(job=name))
    listed = (await shell(entry.jobs, "-o", "json")).json
    assert [job["name"] for job in listed["jobs"]] == [f"jobs/{name}" for name in names]
    assert listed["next_page_token"] == ""


async def test_status_of_a_job_that_runs(shell: Shell) -> None:
    agents = await running_pair(shell.coordinator)
    said = await shell(entry.status, "train")
    assert (said.status, said.err) == (exits.OK, "")
    lines = said.out.splitlines()
    assert lines[1].startswith("state         RUNNING for ")
    assert "round         0: 2 nodes, 4 workers, meeting at 127.0.0.1:40001" in lines
    assert [line.split()[:4] for line in lines[-2:]] == [
        ["node-a", "PARTICIPANT", "0-1", "READY"],
        ["node-b", "PARTICIPANT", "2-3", "READY"],
    ]
    shown = (await shell(entry.status, "train", "-o", "json")).json
    assert shown["job"]["uid"] == (await job_of(shell.coordinator)).uid
    assert [node["group_rank"] for node in shown["nodes"]] == [0, 1]
    assert [worker["local_rank"] for worker in shown["workers"]] == [0, 1, 0, 1]
    del agents


async def test_status_names_the_culprit(shell: Shell) -> None:
    agents = await running_pair(shell.coordinator)
    failure = WorkerFailure(node="node-b", local_rank=1, rank=3, pid=7, exit_code=-9, traceback="first\nlast\n")
    reports = (
        Observed(phase=AgentPhase.READY, round=0, version=agents[0].version),
        Observed(phase=AgentPhase.FAILED, round=0, version=agents[1].version, failures=(failure,)),
    )
    for agent, report in reversed(list(zip(agents, reports, strict=True))):
        await agent.send(report)
        await agent.acked(agent.seq)
    lines = (await shell(entry.status, "train")).out.splitlines()
    assert lines[1].startswith("state         FAILED for ")
    start = next(index for index, line in enumerate(lines) if line.startswith("last failure"))
    assert lines[start].startswith("last failure  rank 3 (local rank 1) on node-b exited with -9 (SIGKILL)")
    assert lines[start + 1 : start + 3] == ["              first", "              last"]


async def test_nodes(shell: Shell) -> None:
    agents = await running_pair(shell.coordinator)
    said = await shell(entry.nodes, "train")
    assert [line.split()[:3] for line in said.out.splitlines()[1:]] == [
        ["node-a", "PARTICIPANT", "0-1"],
        ["node-b", "PARTICIPANT", "2-3"],
    ]
    shown = (await shell(entry.nodes, "train", "-o", "json")).json
    assert list(shown) == ["nodes", "next_page_token"]
    assert [node["state"] for node in shown["nodes"]] == ["NODE_STATE_PARTICIPANT"] * 2
    del agents


async def test_cancel(shell: Shell) -> None:
    agents = await running_pair(shell.coordinator)
    assert await shell(entry.cancel, "train", "--reason", "wrong data") == (0, "job train is being cancelled\n", "")
    job = await job_of(shell.coordinator)
    assert job.state == types_pb2.JOB_STATE_STOPPING
    assert "127.0.0.1: wrong data" in job.message
    assert (await shell(entry.cancel, "train", "-o", "json")).json == {"was_news": False}
    assert (await shell(entry.cancel, "train")).out == "job train: it was cancelled before\n"
    del agents


async def test_restart(shell: Shell) -> None:
    agents = await running_pair(shell.coordinator)
    said = await shell(entry.restart, "train", "--reason", "a new driver")
    told = "the round is being stopped, and the next one formed (of a held job: once it is released)"
    assert said == (0, f"job train: {told}\n", "")
    job = await job_of(shell.coordinator)
    assert job.state == types_pb2.JOB_STATE_STOPPING
    assert "127.0.0.1: a new driver" in job.message
    del agents


async def test_drain(shell: Shell) -> None:
    agents = await running_pair(shell.coordinator)
    said = await shell(entry.drain, "train", "node-b", "--reason", "a new kernel")
    assert said == (0, "node node-b is leaving job train\n", "")
    assert (await shell(entry.drain, "train", "node-b", "-o", "json")).json == {"was_news": False}
    assert (await shell(entry.drain, "train", "node-b")).out == "node node-b of job train: it was drained before\n"
    del agents


async def test_update(shell: Shell) -> None:
    agents = await running_pair(shell.coordinator)
    etag = (await job_of(shell.coordinator)).etag
    labels = ("--label", "team=vision", "--label", "tier=a=b")
    said = await shell(entry.update, "train", "--max-restarts", "7", "--nnodes", "1:4", *labels)
    job = await job_of(shell.coordinator)
    assert said == (0, f"job train is changed; its etag is {job.etag}\n", "")
    assert (job.spec.min_nodes, job.spec.max_nodes, job.spec.max_restarts) == (1, 4, 7)
    assert dict(job.labels) == {"team": "vision", "tier": "a=b"}
    shown = (await shell(entry.update, "train", "--label", "tier-", "--label", "none-", "-o", "json")).json
    assert shown["was_news"] is True
    assert shown["job"]["labels"] == {"team": "vision"}
    assert (await shell(entry.update, "train", "--max-restarts", "7")).out.startswith("job train: it was so already; ")
    late = await shell(entry.update, "train", "--max-restarts", "9", "--etag", etag)
    assert late.status == exits.REFUSED
    assert late.err.startswith("rallypoint update: ETAG_MISMATCH: job train was changed since etag ")
    lines = (await shell(entry.status, "train")).out.splitlines()
    assert "changed       agents agreed on 2 nodes, 0 restarts" in lines
    assert "labels        team=vision" in lines
    del agents


async def test_hold_and_release(shell: Shell) -> None:
    agents = await running_pair(shell.coordinator)
    said = await shell(entry.hold, "train", "--for", "2h", "--reason", "upkeep")
    assert said == (0, "job train is held: what runs goes on, and no other round is formed\n", "")
    assert (await shell(entry.hold, "train", "--for", "1h")).out == "job train: it was held before, for as long\n"
    hold = (await job_of(shell.coordinator)).hold
    assert hold.expire_time.seconds - hold.hold_time.seconds == 7_200
    lines = (await shell(entry.status, "train")).out.splitlines()
    (at,) = (index for index, line in enumerate(lines) if line.startswith("held "))
    assert lines[at] == "held          by 127.0.0.1: upkeep"
    assert lines[at + 1].endswith(" at the latest; no round is formed")
    assert await shell(entry.release, "train") == (0, "job train is released\n", "")
    assert (await shell(entry.release, "train")).out == "job train: it was not held\n"
    assert (await shell(entry.release, "train", "-o", "json")).json == {"was_news": False}
    del agents


NAMES = ("jobs", "status", "nodes", "cancel", "restart", "drain", "update", "hold", "release")
BY_NAME: dict[str, Command] = {name: getattr(entry, name) for name in NAMES}
CHANGES = ["train", "--max-restarts", "1"]


@pytest.mark.parametrize(
    ("name", "argv", "status", "said"),
    [
        ("status", ["none"], exits.REFUSED, "JOB_NOT_FOUND: there is no job none"),
        ("nodes", ["none"], exits.REFUSED, "JOB_NOT_FOUND: there is no job none"),
        ("cancel", ["none"], exits.REFUSED, "JOB_NOT_FOUND: there is no job none"),
        ("restart", ["none"], exits.REFUSED, "JOB_NOT_FOUND: there is no job none"),
        ("drain", ["none", "a"], exits.REFUSED, "JOB_NOT_FOUND: there is no job none"),
        ("update", ["none", "--label", "a=b"], exits.REFUSED, "JOB_NOT_FOUND: there is no job none"),
        ("hold", ["none"], exits.REFUSED, "JOB_NOT_FOUND: there is no job none"),
        ("release", ["none"], exits.REFUSED, "JOB_NOT_FOUND: there is no job none"),
        ("update", ["train", "--nnodes", "0:2"], exits.USAGE, "INVALID_FIELD: job.spec.min_nodes must be 1 to 100,000"),
        ("update", ["train", "--nnodes", "3:2"], exits.USAGE, "INVALID_FIELD: job train cannot be changed so: "),
        ("restart", ["train"], exits.REFUSED, "NO_ROUND_RUNS: "),
        ("drain", ["train", "z"], exits.REFUSED, "NODE_NOT_FOUND: job train has no node z now"),
        ("status", ["a/b"], exits.USAGE, "INVALID_FIELD: name must be jobs/JOB"),
        ("drain", ["train", "a b"], exits.USAGE, "INVALID_FIELD: name must be jobs/JOB/nodes/NODE"),
        (
            "cancel",
            ["train", "--reason", "x" * 1025],
            exits.USAGE,
            "INVALID_FIELD: reason must have at most 1024 bytes",
        ),
    ],
)
async def test_refusals(shell: Shell, name: str, argv: list[str], status: int, said: str) -> None:
    agent = WireAgent(shell.coordinator)
    await agent.attach()
    answer = await shell(BY_NAME[name], *argv)
    assert (answer.status, answer.out) == (status, ""), answer.err
    assert answer.err.startswith(f"rallypoint {name}: {said}")
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("name", ["cancel", "restart", "drain", "update", "hold", "release"])
async def test_a_decided_job_is_left_alone(shell: Shell, name: str) -> None:
    agents = await running_pair(shell.coordinator)
    for agent in agents:
        await agent.send(Observed(phase=AgentPhase.SUCCEEDED, round=0, version=agent.version))
        await agent.acked(agent.seq)
    arguments = {"drain": ["train", "node-a"], "update": CHANGES}.get(name, ["train"])
    answer = await shell(BY_NAME[name], *arguments)
    assert (answer.status, answer.out) == (exits.REFUSED, "")
    assert answer.err.startswith(f"rallypoint {name}: JOB_DECIDED: ")


@functools.cache
def nobody() -> str:
    """Where nobody listens."""
    (port,) = free_range(1)
    return f"127.0.0.1:{port}"


@pytest.mark.parametrize("name", BY_NAME)
async def test_nobody_is_there(shell: Shell, name: str) -> None:
    where = nobody()
    arguments = {"jobs": [], "drain": ["train", "node-a"], "update": CHANGES}.get(name, ["train"])
    answer = await shell(BY_NAME[name], *arguments, at=where)
    assert (answer.status, answer.out) == (exits.UNREACHABLE, "")
    assert answer.err.startswith(f"rallypoint {name}: no coordinator answers at {where}: start one there")
    assert answer.err.count("\n") == 1


async def test_of_several_the_first_that_answers(shell: Shell) -> None:
    here = str(shell.coordinator.address)
    assert (await shell(entry.jobs, at=f"{nobody()},{here}")).status == exits.OK
    assert (await shell(entry.jobs, at=f"{here},{nobody()}")).status == exits.OK
    assert (await shell(entry.jobs, at=f"{nobody()},{nobody()}")).status == exits.UNREACHABLE


async def test_whoever_says_nothing_is_waited_for_no_longer_than_asked(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        answer = await shell(entry.jobs, "--timeout", "200ms", at=where)
    assert answer.status == exits.UNREACHABLE
    assert answer.err.startswith(f"rallypoint jobs: no answer from {where} within 0.2 s")


async def test_a_long_way_to_the_coordinator_is_waited_for(shell: Shell) -> None:
    """Or one that is too busy to accept at once."""
    with TcpProxy(str(shell.coordinator.address), latency_s=0.3) as proxy:
        answer = await shell(entry.jobs, at=proxy.address)
    assert (answer.status, answer.err) == (exits.OK, "")


READER, OPERATOR, UNKNOWN = 1, 2, 3


async def test_tls_and_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    ca = Authority(tmp_path / "ca")
    lines = [token_line(grant("alice", Role.READ), READER), token_line(grant("bob", Role.OPERATOR), OPERATOR)]
    guard = Guard(TokenFile(write_lines(tmp_path / "tokens", lines)))
    credentials = ServerCertificate(ca.server_tls()).credentials()
    server = Server(MemoryJournal(), guard=guard, credentials=credentials)

    def flags(number: int) -> list[str]:
        path = write_lines(tmp_path / f"token-{number}", [token(number)])
        return ["--tls-ca", str(ca.cert), "--token-file", str(path)]

    async with running_coordinator(server=server) as coordinator:
        shell = Shell(capsys, coordinator)
        assert (await shell(entry.jobs, *flags(READER))).status == exits.OK
        monkeypatch.setenv("RALLYPOINT_TLS_CA", str(ca.cert))
        monkeypatch.setenv("RALLYPOINT_TOKEN", token(READER))
        assert (await shell(entry.jobs)).status == exits.OK

        denied = await shell(entry.cancel, "train", *flags(READER))
        assert denied.status == exits.NOT_ALLOWED
        assert denied.err.startswith("rallypoint cancel: PERMISSION_DENIED: ")
        assert "alice" in denied.err
        allowed = await shell(entry.cancel, "train", *flags(OPERATOR))
        assert (allowed.status, "JOB_NOT_FOUND" in allowed.err) == (exits.REFUSED, True)
        unknown = await shell(entry.jobs, *flags(UNKNOWN))
        assert unknown.status == exits.NOT_ALLOWED
        assert unknown.err.startswith("rallypoint jobs: UNAUTHENTICATED: ")
        assert token(UNKNOWN) not in unknown.err

        monkeypatch.delenv("RALLYPOINT_TLS_CA")
        monkeypatch.delenv("RALLYPOINT_TOKEN")
        plain = await shell(entry.jobs)
        assert plain.status == exits.UNREACHABLE
        assert "--tls-ca is missing" in plain.err


async def test_credentials_that_cannot_be_used(shell: Shell, tmp_path: Path) -> None:
    answer = await shell(entry.jobs, "--token-file", str(tmp_path / "none"))
    assert answer == (exits.USAGE, "", f"rallypoint jobs: {tmp_path}/none: No such file or directory\n")


async def test_a_token_does_not_go_over_the_network_in_plain_text(shell: Shell, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "token", [token(READER)])
    answer = await shell(entry.jobs, "--token-file", str(path), at="head.invalid:1")
    assert answer.status == exits.USAGE
    assert "in plain text" in answer.err
