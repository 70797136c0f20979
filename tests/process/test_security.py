"""Real processes over mutual TLS with tokens: a job, what nobody may see, rotations, and what goes wrong."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from rallypoint.security.client import ClientSecurity
from rallypoint.v1 import job_service_pb2, types_pb2
from rallypoint_coordinator.security.policy import Role
from support.certificates import Authority, Pair
from support.cluster import Process, ProcessCluster
from support.processes import pids_with_mark, wait_until
from support.tokens import certificate_line, grant, token, token_line, write_lines

FLEET, MINE, NEXT = 1, 2, 3
WATCHER = certificate_line(grant("watcher", *Role), "watcher")
LINES = {
    FLEET: token_line(grant("fleet", Role.AGENT), FLEET),
    MINE: token_line(grant("job-agent", Role.AGENT, job="job"), MINE),
    NEXT: token_line(grant("fleet-next", Role.AGENT), NEXT),
}


@dataclass
class Site:
    """A coordinator's certificates and token file, and an agent's."""

    folder: Path
    ca: Authority
    server: Pair
    agent: Pair
    cluster: ProcessCluster

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens"

    def grant(self, *numbers: int) -> None:
        write_lines(self.tokens, [WATCHER, *(LINES[number] for number in numbers)])

    def token_file(self, number: int, name: str = "agent.token") -> Path:
        return write_lines(self.folder / name, [token(number)])

    @property
    def trusted(self) -> Path:
        return self.folder / "trusted.pem"

    def serve(self, *args: str, again: bool = False) -> Process:
        tls = ("--tls-cert", str(self.server.cert), "--tls-key", str(self.server.key))
        access = ("--tls-client-ca", str(self.ca.cert), "--token-file", str(self.tokens))
        start = self.cluster.coordinator_again if again else self.cluster.coordinator
        return start(*tls, *access, *args)

    @property
    def tls_args(self) -> tuple[str, ...]:
        return (
            *("--tls-ca", str(self.trusted)),
            *("--tls-cert", str(self.agent.cert)),
            *("--tls-key", str(self.agent.key)),
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    ca = Authority(tmp_path / "ca")
    watcher = ca.issue("watcher", has_names=False)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(ca.cert.read_bytes())
    security = ClientSecurity("", str(trusted), str(watcher.cert), str(watcher.key))
    with ProcessCluster(tmp_path, security=security) as cluster:
        site = Site(tmp_path, ca, ca.issue(), ca.issue("agent", "agent.example.org"), cluster)
        site.grant(FLEET, MINE)
        yield site


def run_until_told(site: Site, name: str, *args: str, nodes: int = 1, **env: str) -> Process:
    worker = site.cluster.worker("wait.py")
    common = ("--rdzv-id", "job", "--nnodes", str(nodes), "--shutdown-timeout", "1s", *site.tls_args)
    return site.cluster.agent(name, *common, *args, worker, **env)


def written_by(site: Site) -> dict[Path, bytes]:
    """Every file that the processes wrote, the journal and the logs among them."""
    mine = {site.folder / "agent.token", site.folder / "tokens"}
    return {path: path.read_bytes() for path in site.folder.rglob("*") if path.is_file() and path not in mine}


def test_a_job_runs_and_its_token_is_nowhere_to_be_seen(site: Site) -> None:
    tell = site.folder / "tell"
    tell.mkdir()
    site.serve("--data-dir", str(site.folder / "data"), "--log-level", "debug")
    told: dict[str, str] = {"TELL": str(tell), "LINGER_ON_RANK": "1", "RALLYPOINT_TOKEN": token(MINE)}
    args = ("--rdzv-id", "job", "--nnodes", "2", "--log-dir", str(site.folder / "logs"), *site.tls_args)
    script = site.cluster.worker("tell.py")
    by_variable = site.cluster.agent("node-a", *args, script, **told)
    del told["RALLYPOINT_TOKEN"]
    by_file = site.cluster.agent("node-b", *args, "--token-file", str(site.token_file(MINE)), script, **told)
    wait_until(lambda: len(list(tell.glob("*.json"))) == 2, 60, "the workers do not run")
    secret = token(MINE).encode()
    for pid in pids_with_mark(site.cluster.mark):
        assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
    for path in tell.glob("*.json"):
        env = json.loads(path.read_text())["env"]
        assert "RALLYPOINT_TOKEN" not in env
        assert token(MINE) not in env.values()
    assert token(MINE) not in str(site.cluster.job("job")) + str(site.cluster.nodes("job"))
    lingers = next(w for w in site.cluster.workers("job") if w.rank == 1)
    site.cluster.drain("job", lingers.node)
    for agent in (by_variable, by_file):
        agent.signal(signal.SIGTERM)
    for agent in (by_variable, by_file):
        agent.wait()
    leaks = [str(path) for path, data in written_by(site).items() if secret in data]
    assert leaks == []


def test_the_obituary_shows_its_credentials(site: Site) -> None:
    """The agent is killed: what its keeper runs has the token from the variable, and the certificate from the files."""
    site.serve()
    by_variable = run_until_told(site, "node-a", nodes=2, RALLYPOINT_TOKEN=token(FLEET))
    by_file = run_until_told(site, "node-b", "--token-file", str(site.token_file(MINE)), nodes=2)
    wait_until(lambda: len(site.cluster.wait_for_round("job", 0)) == 2, message="two nodes do not run")
    for node, agent in {"node-a": by_variable, "node-b": by_file}.items():
        agent.signal(signal.SIGKILL)
        agent.wait()
        wait_until(partial(is_gone, site, node), 20, "no obituary came")


def is_gone(site: Site, node: str) -> bool:
    return site.cluster.nodes("job")[node].state == job_service_pb2.NODE_STATE_GONE


@pytest.mark.parametrize(
    ("spoil", "status", "said"),
    [
        ("wrong ca", 3, "not signed by an authority of --tls-ca"),
        ("expired", 3, "certificate has expired"),
        ("plain text", 3, "--tls-ca is missing here"),
        ("no certificate", 3, "--tls-cert and --tls-key are missing here"),
        (
            "no token",
            4,
            "no token, and the certificate's name (agent.example.org) is not one that this coordinator knows",
        ),
        ("unknown token", 4, "refused: the token is not one that this coordinator knows"),
        ("role read", 4, "refused: reader has the role read, and AgentService/Attach needs agent"),
        ("other job", 4, "refused: job-agent is for job job alone, not for job 'other'"),
    ],
)
def test_each_mistake_has_one_line_of_advice(spoil: str, status: int, said: str, site: Site) -> None:
    if spoil == "expired":
        site.server.replace_by(site.ca.issue(ends_in=-timedelta(hours=1)))
    site.serve()
    tls, job, number = list(site.tls_args), "other" if spoil == "other job" else "job", FLEET
    if spoil == "wrong ca":
        tls[1] = str(Authority(site.folder / "other", "other").cert)
    if spoil == "plain text":
        tls = []
    if spoil == "no certificate":
        tls = tls[:2]
    if spoil == "unknown token":
        number = NEXT
    if spoil == "role read":
        write_lines(site.tokens, [token_line(grant("reader", Role.READ), FLEET)])
    if spoil == "other job":
        number = MINE
    shown = () if spoil == "no token" else ("--token-file", str(site.token_file(number)))
    args = ("--rdzv-id", job, "--connect-timeout", "3s", *tls, *shown)
    agent = site.cluster.agent("node-a", *args, site.cluster.worker("wait.py"))
    assert agent.wait() == status, agent.output
    lines = [line for line in agent.output.splitlines() if said in line]
    assert lines, agent.output
    assert token(number) not in agent.output
    assert "Traceback" not in agent.output


def test_strangers_do_not_fill_the_log(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    coordinator = site.serve()
    before = coordinator.output
    host, _, port = site.cluster.address.rpartition(":")
    for garbage in (b"GET / HTTP/1.0\r\n\r\n", bytes(range(256))):
        with socket.create_connection((host, int(port)), 20) as stranger:
            stranger.sendall(garbage)
            with suppress(ConnectionResetError):
                assert stranger.recv(1) == b"", "it hung up"
    assert coordinator.output == before


def test_certificates_are_rotated_under_a_live_agent(site: Site) -> None:
    coordinator = site.serve("--data-dir", str(site.folder / "data"))
    token_file = str(site.token_file(FLEET))
    run_until_told(site, "node-a", "--token-file", token_file)
    (before,) = site.cluster.wait_for_round("job", 0)
    # Both authorities are trusted for a while; then only the new one is.
    new = Authority(site.folder / "new", "new")
    both = site.ca.cert.read_bytes() + new.cert.read_bytes()
    for path in (site.trusted, site.ca.cert):
        path.write_bytes(both)
    site.server.replace_by(new.issue())
    site.agent.replace_by(new.issue("agent"))
    site.trusted.write_bytes(new.cert.read_bytes())
    # The test itself connects anew, and trusts the new one only.
    assert [worker.pid for worker in site.cluster.wait_for_round("job", 0)] == [before.pid]
    coordinator.signal(signal.SIGTERM)
    coordinator.wait()
    site.serve("--data-dir", str(site.folder / "data"), again=True)
    wait_until(lambda: site.cluster.nodes("job")["node-a"].attached, 30, "the agent did not come back")
    (after,) = site.cluster.wait_for_round("job", 0)
    assert after.pid == before.pid


def test_tokens_are_rotated_under_a_live_agent(site: Site) -> None:
    coordinator = site.serve()
    agent = run_until_told(site, "node-a", "--token-file", str(site.token_file(FLEET)))
    (before,) = site.cluster.wait_for_round("job", 0)
    site.grant(FLEET, NEXT)
    coordinator.wait_for("the token file .* was read again: 3 credentials")
    site.token_file(NEXT)
    site.grant(NEXT)
    coordinator.wait_for("ended .*Attach of fleet: its credentials are no longer in the token file")
    wait_until(lambda: site.cluster.nodes("job")["node-a"].attached, 30, "the agent did not come back")
    (after,) = site.cluster.wait_for_round("job", 0)
    assert after.pid == before.pid
    assert agent.popen.poll() is None


def test_a_rotation_in_the_wrong_order_is_survived(site: Site) -> None:
    """The old token is taken out before the agent has the new one: it holds its workers for as long as its lease."""
    coordinator = site.serve()
    agent = run_until_told(site, "node-a", "--token-file", str(site.token_file(FLEET)))
    (before,) = site.cluster.wait_for_round("job", 0)
    site.grant(NEXT)
    agent.wait_for("not attached to the coordinator: the token is not one that this coordinator knows")
    site.token_file(NEXT)
    coordinator.wait_for("ended .*Attach of fleet")
    wait_until(lambda: site.cluster.nodes("job")["node-a"].attached, 30, "the agent did not come back")
    (after,) = site.cluster.wait_for_round("job", 0)
    assert after.pid == before.pid


def test_who_is_taken_out_for_good_ends_with_its_lease(site: Site) -> None:
    site.serve()
    agent = run_until_told(site, "node-a", "--lease-ttl", "9s", "--token-file", str(site.token_file(FLEET)))
    (worker,) = site.cluster.wait_for_round("job", 0)
    site.grant()
    assert agent.wait() == 4, agent.output
    assert re.search("refused: the token is not one that this coordinator knows", agent.output)
    assert not Path(f"/proc/{worker.pid}").exists()
    wait_until(lambda: site.cluster.job("job").state != types_pb2.JOB_STATE_RUNNING, 30, "the node was never lost")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the commands of the docs begin with openssl")
def test_the_five_commands_of_the_docs(tmp_path: Path) -> None:
    """As they stand there, but for addresses, and for what the agent runs."""
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text.partition("## Close the door")[2], re.DOTALL)[:2]
    told = (
        "".join(blocks).replace("\\\n", " ").replace("head.example.org", "localhost").replace("10.0.0.1", "127.0.0.1")
    )
    *preparing, serving, running = told.strip().splitlines()
    assert len(preparing) == 3
    for command in preparing:
        command = re.sub("^rallypoint ", f"{sys.executable} -m rallypoint ", command)
        subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=True, capture_output=True)

    def words(command: str, first: str) -> list[str]:
        files = r"\b(server\.crt|server\.key|agent\.token|tokens)\b"
        return shlex.split(re.sub(files, rf"{tmp_path}/\1", command).removeprefix(first).partition(" --rdzv-id")[0])

    with ProcessCluster(tmp_path) as cluster:
        _, _, *flags = words(serving, "rallypoint coordinator ")
        # The door is not open to the network of whoever runs the tests.
        cluster.coordinator(*flags)
        _, _, *flags = words(running, "rallypoint run ")
        agent = cluster.agent("node-a", *flags, "--rdzv-id", "job", "--no-python", "true")
        assert agent.wait() == 0, agent.output
