"""grpc.health.v1 as a kubelet sees it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_health.v1 import health_pb2

from rallypoint_agent.health_check_server import HealthCheckServer, create_healthcheck_server

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WAIT_S = 20.0
BUF = Path(sys.executable).with_name("buf")


class Progress:
    """The time of the last progress, as a test sets it."""

    def __init__(self) -> None:
        self.ago_s = 0
        self.error: Exception | None = None

    def __call__(self) -> int:
        if self.error:
            raise self.error
        return int(time.time()) - self.ago_s


@pytest.fixture
def progress() -> Progress:
    return Progress()


@pytest.fixture
def server(progress: Progress) -> Iterator[HealthCheckServer]:
    health_check_server = create_healthcheck_server(progress, 0, 60)
    health_check_server.start()
    yield health_check_server
    health_check_server.stop()


@pytest.fixture
def channel(server: HealthCheckServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.bound_port}") as channel:
        yield channel


def check(channel: grpc.Channel, service: str = "") -> int:
    call: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    call = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return call(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S).status


def watch(channel: grpc.Channel, service: str = "") -> Any:
    """The answers as an iterator, which can be cancelled."""
    call: grpc.UnaryStreamMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    call = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return call(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S)


def test_serves_while_there_is_progress(channel: grpc.Channel, progress: Progress) -> None:
    assert check(channel) == SERVING
    progress.ago_s = 55
    assert check(channel) == SERVING
    progress.ago_s = 62
    assert check(channel) == NOT_SERVING
    progress.ago_s = 0
    assert check(channel) == SERVING


def test_a_callback_that_fails_is_not_well(
    channel: grpc.Channel, progress: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    progress.error = ZeroDivisionError("oh")
    assert check(channel) == NOT_SERVING
    assert "ZeroDivisionError" in caplog.text


def test_an_unknown_service_is_not_found(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        check(channel, "no.such.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_watch_tells_of_changes(channel: grpc.Channel, progress: Progress) -> None:
    answers = watch(channel)
    assert next(answers).status == SERVING
    progress.ago_s = 3600
    assert next(answers).status == NOT_SERVING
    answers.cancel()


def test_many_can_watch_while_others_check(channel: grpc.Channel) -> None:
    watches = [watch(channel) for _ in range(20)]
    assert {next(answers).status for answers in watches} == {SERVING}
    assert check(channel) == SERVING
    for answers in watches:
        answers.cancel()


def test_a_port_in_use_is_logged_and_no_more(
    server: HealthCheckServer, progress: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    assert server.bound_port
    second = HealthCheckServer(progress, server.bound_port, 60)
    second.start()
    assert second.bound_port is None
    assert f"port {server.bound_port} cannot be bound" in caplog.text
    second.stop()


def test_can_be_stopped_and_started_again(server: HealthCheckServer) -> None:
    server.start()
    server.stop()
    assert server.bound_port is None
    server.stop()
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.bound_port}") as channel:
        assert check(channel) == SERVING


def test_services_have_answers_of_their_own(progress: Progress) -> None:
    server = HealthCheckServer(progress, 0, 60)
    well = {"a": True, "b": False}
    server.add_service("a", lambda: well["a"])
    server.add_service("b", lambda: well["b"])
    server.add_service("broken", lambda: well["c"])
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.bound_port}") as channel:
        assert [check(channel, name) for name in ("", "a", "b", "broken")] == [
            SERVING,
            SERVING,
            NOT_SERVING,
            NOT_SERVING,
        ]
        answers = watch(channel, "a")
        assert next(answers).status == SERVING
        well["a"] = False
        assert next(answers).status == NOT_SERVING
        assert check(channel) == SERVING
        answers.cancel()
    server.stop()


def test_a_subclass_need_not_call_our_constructor() -> None:
    class Own(HealthCheckServer):
        def __init__(self) -> None:
            self.started = False

        def start(self) -> None:
            self.started = True

    own = Own()
    own.add_service("x", lambda: True)
    own.start()
    assert own.started
    own.stop()


async def test_buf_curl_asks_as_anybody_may(server: HealthCheckServer, progress: Progress, tmp_path: Path) -> None:
    schema = tmp_path / "health.binpb"
    descriptor = FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(descriptor)
    schema.write_bytes(FileDescriptorSet(file=[descriptor]).SerializeToString())

    async def status() -> str:
        url = f"http://127.0.0.1:{server.bound_port}/grpc.health.v1.Health/Check"
        flags = ("--protocol", "grpc", "--http2-prior-knowledge", "--schema", str(schema), "-d", "{}")
        process = await asyncio.create_subprocess_exec(
            BUF, "curl", *flags, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err
        return str(json.loads(out)["status"])

    assert await status() == "SERVING"
    progress.ago_s = 3600
    assert await status() == "NOT_SERVING"


def test_has_what_torchs_class_has(progress: Progress) -> None:
    server = HealthCheckServer(alive_callback=progress, port=7, timeout=9)
    assert server.alive_callback is progress
    assert (server._alive_callback, server._port, server._timeout) == (progress, 7, 9)
    assert HealthCheckServer(progress, 7)._timeout == 60


@pytest.mark.parametrize("port", [-1, 65_536])
def test_what_is_no_port_is_logged_and_no_more(progress: Progress, caplog: pytest.LogCaptureFixture, port: int) -> None:
    server = HealthCheckServer(progress, port)
    server.start()
    assert server.bound_port is None
    assert f"{port} is no port" in caplog.text
    server.stop()
