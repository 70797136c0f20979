"""The clients in other languages over TLS, with tokens and certificates: what they may do, and what refuses them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients.js_agent import JOB, JS_NODE, Fleet
from clients.js_status import js_status
from rallypoint.security.client import ClientSecurity
from rallypoint.v1.job_service_pb2 import NODE_STATE_GONE
from rallypoint.v1.types_pb2 import JOB_STATE_SUCCEEDED
from rallypoint_coordinator.security.policy import Role
from support.certificates import Authority
from support.cluster import Process, ProcessCluster, wait_gone
from support.processes import MARK_VARIABLE, is_alive, wait_until
from support.tokens import certificate_line, grant, token, token_line, write_lines

OPERATOR, READER, MINE, OTHERS, NEXT = range(1, 6)
"""Tokens: of the test itself, of who may read, of an agent of the job, of another job's agent, and of one to come."""

LINES = {
    OPERATOR: token_line(grant("operator", *Role), OPERATOR),
    READER: token_line(grant("reader", Role.READ), READER),
    MINE: token_line(grant("mine", Role.AGENT, job=JOB), MINE),
    OTHERS: token_line(grant("others", Role.AGENT, job="another"), OTHERS),
    NEXT: token_line(grant("next", Role.AGENT, job=JOB), NEXT),
}
CERTIFICATE = certificate_line(grant("by-certificate", Role.READ), "reader.example.org")

# The first of them builds the C++ client, which takes a while where much else is going on.
pytestmark = pytest.mark.timeout(300)


@dataclass
class Site:
    """A coordinator with TLS and tokens, and what its clients need."""

    ca: Authority
    cluster: ProcessCluster

    @property
    def folder(self) -> Path:
        return self.cluster.folder

    def grant(self, *numbers: int) -> Path:
        return write_lines(self.folder / "tokens", [CERTIFICATE, *(LINES[number] for number in numbers)])

    def serve(self, *args: str) -> None:
        pair = self.ca.issue()
        tokens = ("--token-file", str(self.grant(OPERATOR, READER, MINE, OTHERS)))
        self.cluster.coordinator("--tls-cert", str(pair.cert), "--tls-key", str(pair.key), *tokens, *args)
        # By its name: Node.js warns of certificates that are asked for by an address.
        self.cluster.address = self.cluster.address.replace("127.0.0.1", "localhost")

    def token_file(self, number: int) -> str:
        return str(write_lines(self.folder / f"token-{number}", [token(number)]))

    def flags(self, number: int) -> tuple[str, ...]:
        return ("--tls-ca", str(self.ca.cert), "--token-file", self.token_file(number))

    def variables(self, number: int) -> dict[str, str]:
        return {"RALLYPOINT_TLS_CA": str(self.ca.cert), "RALLYPOINT_TOKEN_FILE": self.token_file(number)}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    ca = Authority(tmp_path / "ca")
    operator = write_lines(tmp_path / "operator.token", [token(OPERATOR)])
    with ProcessCluster(tmp_path, security=ClientSecurity(str(operator), str(ca.cert))) as cluster:
        yield Site(ca, cluster)


def fleet_of(site: Site, client: Path, *flags: str) -> Fleet:
    return Fleet(site.cluster, client, *flags, *site.flags(MINE))


# --- The status clients


def ask(site: Site, command: list[str], *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [*command, site.cluster.address, JOB, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **env})


@pytest.fixture
def running(site: Site) -> Site:
    """With a job that runs."""
    site.serve("--tls-client-ca", str(site.ca.cert))
    agent = site.ca.issue("agent", "agent.example.org")
    mine = ("--tls-cert", str(agent.cert), "--tls-key", str(agent.key), *site.flags(MINE))
    site.cluster.security = site.cluster.security._replace(tls_cert=str(agent.cert), tls_key=str(agent.key))
    site.cluster.agent("node-a", "--rdzv-id", JOB, *mine, site.cluster.worker("wait.py"))
    site.cluster.wait_for_round(JOB, 0)
    return site


def test_status_is_told_to_who_has_a_token_or_a_certificate(running: Site, status: list[str]) -> None:
    stranger = running.ca.issue("stranger", "stranger.example.org")
    known = running.ca.issue("reader", "reader.example.org")
    by_certificate = {"RALLYPOINT_TLS_CA": str(running.ca.cert)}
    by_token = running.variables(READER)
    for variables, pair in ((by_token, stranger), (by_certificate, known)):
        shown = {"RALLYPOINT_TLS_CERT": str(pair.cert), "RALLYPOINT_TLS_KEY": str(pair.key)}
        done = ask(running, status, **variables, **shown)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("job: running, round 0, restart 0 of 0: ")


@pytest.fixture
def open_to_tokens(site: Site) -> Site:
    site.serve()
    return site


@pytest.mark.parametrize(
    ("number", "said"), [(0, "no token; "), (NEXT, "the token is not one that"), (OTHERS, "is for job another alone")]
)
def test_status_says_why_it_was_refused(open_to_tokens: Site, status: list[str], number: int, said: str) -> None:
    variables = open_to_tokens.variables(number) if number else {"RALLYPOINT_TLS_CA": str(open_to_tokens.ca.cert)}
    done = ask(open_to_tokens, status, **variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


def test_status_believes_no_other_authority(open_to_tokens: Site, status: list[str]) -> None:
    other = Authority(open_to_tokens.folder / "other", "other")
    done = ask(open_to_tokens, status, **{**open_to_tokens.variables(READER), "RALLYPOINT_TLS_CA": str(other.cert)})
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search("status: .*(unable to verify|verify failed)", done.stderr)


def test_a_token_does_not_leave_the_machine_in_plain_text(site: Site, status: list[str]) -> None:
    site.cluster.address = "coordinator.invalid:1"
    done = ask(site, status, RALLYPOINT_TOKEN_FILE=site.token_file(READER))
    assert done.returncode != 0
    assert "the token would go to coordinator.invalid:1 in plain text" in done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--tls-cert", "a"), "--tls-cert and --tls-key go together"),
        (("--tls-cert", "a", "--tls-key", "b"), "--tls-cert needs --tls-ca"),
        (("--token-file", "/nowhere"), "/nowhere"),
    ],
)
def test_flags_that_make_no_sense(node_client: Path, site: Site, flags: tuple[str, ...], said: str) -> None:
    site.cluster.address = "127.0.0.1:1"
    done = ask(site, js_status(node_client), *flags)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_watch_outlives_a_rotation(open_to_tokens: Site, node_client: Path) -> None:
    site = open_to_tokens
    fleet = fleet_of(site, node_client, "--nnodes", "1")
    agent = fleet.start_js_agent()
    fleet.pids(0)
    mine = site.flags(READER)
    command = [*js_status(node_client), site.cluster.address, JOB, "--watch", *mine]
    watching = Process("watch", command, site.folder, {**os.environ, MARK_VARIABLE: site.cluster.mark})
    site.cluster.processes.append(watching)
    watching.wait_for("job: running")
    write_lines(site.folder / f"token-{READER}", [token(OPERATOR)])
    site.grant(OPERATOR, MINE)
    watching.wait_for(r"the watch broke \(CREDENTIALS_CHANGED: .+\); trying again")
    fleet.end_all_workers()
    assert agent.wait() == 0
    assert watching.wait() == 0
    assert "job_decided" in watching.out.read_text().splitlines()[-1]


# --- The agent


def test_an_agent_with_the_jobs_token_takes_part_and_keeps_it_to_itself(site: Site, node_client: Path) -> None:
    site.serve()
    fleet = fleet_of(site, node_client, "--nnodes", "2", "--max-restarts", "1")
    agents = [fleet.start_python_agent("node-a"), fleet.start_js_agent(RALLYPOINT_TOKEN=token(MINE))]
    first = fleet.pids(0)
    for rank in first:
        assert token(MINE) not in fleet.environment(rank, 0).values()
    fleet.end_worker(0, 0, 1)
    assert len(fleet.pids(1)) == 2
    fleet.end_all_workers()
    assert [agent.wait() for agent in agents] == [0, 0]
    assert site.cluster.job(JOB).state == JOB_STATE_SUCCEEDED


def test_another_jobs_token_is_refused_for_good(site: Site, node_client: Path) -> None:
    site.serve()
    agent = Fleet(site.cluster, node_client, "--nnodes", "1", *site.flags(OTHERS)).start_js_agent()
    assert agent.wait() == 4
    assert "refused: PERMISSION_DENIED: " in agent.output
    assert token(OTHERS) not in agent.output


def test_a_rotation_costs_no_worker(site: Site, node_client: Path) -> None:
    """In the right order, and in the wrong one: then it is refused for a while, and goes on trying."""
    site.serve()
    fleet = fleet_of(site, node_client, "--nnodes", "1")
    agent = fleet.start_js_agent()
    pids = fleet.pids(0)
    lease_id = site.cluster.nodes(JOB)[JS_NODE].lease_id
    mine = site.folder / f"token-{MINE}"

    write_lines(mine, [token(NEXT)])
    site.grant(OPERATOR, NEXT)
    agent.wait_for(r"lost contact.*\n(.*not attached.*\n)*.*: attached\n")

    site.grant(OPERATOR, MINE)
    agent.wait_for("not attached: UNAUTHENTICATED: ")
    write_lines(mine, [token(MINE)])
    agent.wait_for(r"not attached: UNAUTHENTICATED.*\n(.*not attached.*\n)*.*: attached\n")

    assert fleet.pids(0) == pids
    assert site.cluster.nodes(JOB)[JS_NODE].lease_id == lease_id
    fleet.end_all_workers()
    assert agent.wait() == 0


def test_who_is_shut_out_for_good_ends_with_its_worker(site: Site, node_client: Path) -> None:
    site.serve()
    fleet = fleet_of(site, node_client, "--nnodes", "1", "--lease-ttl", "8")
    agent = fleet.start_js_agent()
    pids = fleet.pids(0)
    site.grant(OPERATOR)
    assert agent.wait() == 4
    assert "refused: UNAUTHENTICATED: " in agent.output
    assert not is_alive(pids[0])


def test_its_obituary_shows_its_credentials(site: Site, node_client: Path) -> None:
    site.serve()
    fleet = fleet_of(site, node_client, "--nnodes", "1")
    agent = fleet.start_js_agent()
    pids = fleet.pids(0)
    agent.signal(signal.SIGKILL)
    wait_gone({pids[0]})
    wait_until(lambda: site.cluster.nodes(JOB)[JS_NODE].state == NODE_STATE_GONE)
