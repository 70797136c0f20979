"""``rallypoint coordinator`` as a process."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from rallypoint import wire
from rallypoint.model import Capability, Hello, JobSpec, NodeSpec
from rallypoint.rpc_status import refusal_from_rpc_error
from rallypoint.v1 import agent_service_pb2, job_service_pb2
from rallypoint.v1.agent_service_pb2_grpc import AgentServiceStub
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub

COMMAND = (sys.executable, "-m", "rallypoint", "coordinator")
TIMEOUT_S = 30.0


class Process:
    """A coordinator that serves; ``address`` is what it printed."""

    def __init__(self, argv: Sequence[str], stdin: int = subprocess.DEVNULL) -> None:
        self.popen = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.popen.stdout is not None
        words = self.popen.stdout.readline().split()
        assert words[:4] == ["rallypoint", "coordinator", "listening", "on"], words
        self.address = words[4]

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: the exit status, the rest of its standard output, its standard error."""
        out, err = self.popen.communicate(timeout=TIMEOUT_S)
        return self.popen.returncode, out, err


@contextmanager
def coordinator(*flags: str, argv: Sequence[str] = COMMAND, stdin: int = subprocess.DEVNULL) -> Iterator[Process]:
    process = Process((*argv, "--listen", "127.0.0.1:0", *flags), stdin)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.communicate()


def run_to_its_end(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((*COMMAND, *flags), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def hello() -> agent_service_pb2.AttachRequest:
    first = Hello(
        job="train",
        node="node-a",
        incarnation="incarnation-a",
        attach_seq=1,
        job_spec=JobSpec(),
        node_spec=NodeSpec(),
        capabilities=frozenset(Capability),
    )
    return wire.attach_request_to_proto(first, lease_id=0, seq=1)


def health(channel: grpc.Channel) -> int:
    stub: Any = HealthStub(channel)
    status: int = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status
    return status


@pytest.mark.parametrize("argv", [COMMAND, (sys.executable, "-m", "rallypoint_coordinator")])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends_on_a_signal(argv: Sequence[str], number: signal.Signals) -> None:
    with coordinator(argv=argv) as process:
        with grpc.insecure_channel(process.address) as channel:
            assert health(channel) == health_pb2.HealthCheckResponse.SERVING
            jobs = JobServiceStub(channel).ListJobs(job_service_pb2.ListJobsRequest(), timeout=TIMEOUT_S)
            assert list(jobs.jobs) == []
        process.popen.send_signal(number)
        status, out, err = process.end()
    assert (status, out) == (0, "")
    assert number.name in err
    assert "Traceback" not in err


def test_agents_are_told_that_it_shuts_down() -> None:
    over = threading.Event()
    with coordinator() as process, grpc.insecure_channel(process.address) as channel:
        stream = AgentServiceStub(channel).Attach(open_until(over, hello()), timeout=TIMEOUT_S)
        assert next(stream).welcome.HasField("directive")
        process.popen.terminate()
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        over.set()
        refusal = refusal_from_rpc_error(caught.value)
        assert refusal is not None
        assert (refusal.reason, refusal.code) == ("SHUTTING_DOWN", "UNAVAILABLE")
        assert process.end()[0] == 0


def open_until(
    over: threading.Event, first: agent_service_pb2.AttachRequest
) -> Iterator[agent_service_pb2.AttachRequest]:
    """A stream whose sender does not end it."""
    yield first
    over.wait(TIMEOUT_S)


def test_a_port_in_use_is_said_on_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = run_to_its_end("--listen", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"rallypoint coordinator: cannot listen on {address}: Address already in use; ")
    assert done.stderr.count("\n") == 1


def test_two_coordinators_never_share_a_port() -> None:
    with coordinator() as process:
        done = run_to_its_end("--listen", process.address)
    assert done.returncode == 1


def test_an_open_door_needs_a_word() -> None:
    done = run_to_its_end("--listen", "0.0.0.0:0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_with_the_word_the_door_is_open() -> None:
    process = Process((*COMMAND, "--listen", "0.0.0.0:0", "--insecure"))
    process.popen.terminate()
    assert process.end()[0] == 0
    assert process.address.startswith("0.0.0.0:")


def test_embedded_it_ends_without_a_word_if_its_agent_is_gone() -> None:
    argv = [*COMMAND, "--embedded", "--listen", "127.0.0.1:0", "--log-level", "warning"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        said = process.communicate(timeout=TIMEOUT_S)[1]
    assert (process.returncode, said) == (0, b"")


def test_embedded_it_ends_with_its_standard_input() -> None:
    with coordinator("--embedded", stdin=subprocess.PIPE) as process:
        process.popen.send_signal(signal.SIGINT)
        with grpc.insecure_channel(process.address) as channel:
            assert health(channel) == health_pb2.HealthCheckResponse.SERVING
        assert process.popen.stdin is not None
        process.popen.stdin.close()
        process.popen.stdin = None
        assert process.end()[:2] == (0, "")


def test_it_ends_when_nobody_comes() -> None:
    with coordinator("--exit-when-idle", "100ms") as process:
        status, out, err = process.end()
    assert (status, out) == (0, "")
    assert "nobody has been here for 0.1 s: ending, as --exit-when-idle says" in err


def test_a_second_signal_ends_it_at_once() -> None:
    with coordinator() as process:
        process.popen.send_signal(signal.SIGSTOP)
        process.popen.send_signal(signal.SIGINT)
        process.popen.send_signal(signal.SIGTERM)
        process.popen.send_signal(signal.SIGCONT)
        assert process.end()[0] in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def test_logs_have_one_format() -> None:
    """So gRPC has nothing to say either, as it would of an experiment that it does not have any more."""
    with coordinator("--log-level", "info") as process:
        with grpc.insecure_channel(process.address) as channel:
            stream = AgentServiceStub(channel).Attach(iter([hello()]), timeout=TIMEOUT_S)
            next(stream)
        process.popen.terminate()
        _, _, err = process.end()
    lines = err.splitlines()
    assert all(line[:2] == "20" and line[23:29] == "Z INFO" for line in lines), json.dumps(lines)
    assert any(": job train (" in line for line in lines)


def test_a_standard_output_that_takes_nothing_is_no_reason_not_to_serve() -> None:
    with Path("/dev/full").open("w") as full:
        popen = subprocess.Popen((*COMMAND, "--listen", "127.0.0.1:0"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert popen.stderr is not None
    lines: list[str] = []
    while not lines or "No space left on device" not in lines[-1]:
        lines.append(popen.stderr.readline())
        assert lines[-1], "it has ended"
    found = re.search(r"listening on (\S+) \(standard output cannot be written", lines[-1])
    assert found
    with grpc.insecure_channel(found[1]) as channel:
        assert health(channel) == health_pb2.HealthCheckResponse.SERVING
    popen.terminate()
    _, err = popen.communicate(timeout=TIMEOUT_S)
    assert popen.returncode == 0
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--token-file", "{}/tokens"), "{}/tokens: line 1: the roles must be some of read, agent, operator"),
        (("--token-file", "{}/none"), "{}/none: No such file or directory"),
        (("--tls-cert", "{}/none", "--tls-key", "{}/none"), "{}/none: No such file or directory"),
    ],
)
def test_what_cannot_guard_the_door_keeps_it_shut(flags: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("fleet root * sha256:0\n")
    given = [flag.format(tmp_path) for flag in flags]
    ended = run_to_its_end("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"), *given)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"rallypoint coordinator: {said.format(tmp_path)}")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
