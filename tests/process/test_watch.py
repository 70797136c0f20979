"""A thousand watchers of a job whose coordinator is killed again and again are told what the journal has."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from rallypoint.rpc_status import refusal_from_rpc_error
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from rallypoint_coordinator.store.codec import decode
from rallypoint_coordinator.store.sqlite import SqliteJournal
from support.cluster import Process, ProcessCluster
from support.processes import wait_until
from support.watch_guarantees import Records, check
from support.watch_history import Reader

WATCHERS = 1_000
CONNECTIONS = 20
KILLS = 3
NODES = ("node-a", "node-b")
LOCAL = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


class Watcher:
    """Some hang up after so many messages, and come back."""

    def __init__(self, channel: grpc.aio.Channel, number: int) -> None:
        self.reader = Reader("job")
        self._stub: Any = JobServiceStub(channel)
        self._patience = 1 + number % 5 if number % 3 == 0 else 1_000

    async def watch(self) -> None:
        """Until the job is decided."""
        how = ""
        while how != "OK":
            how = await self._stream()
            self.reader.ended(how)
            if how != "OK":
                await asyncio.sleep(0.05)  # as every client: it is not for us to say when somebody answers again

    async def _stream(self) -> str:
        call = self._stub.WatchJob(self.reader.request())
        try:
            for _ in range(self._patience):
                message = await call.read()
                if message is grpc.aio.EOF:
                    return "OK"
                self.reader.told(message)
        except grpc.aio.AioRpcError as error:
            refusal = refusal_from_rpc_error(error)
            return refusal.reason.value if refusal is not None else "broken"
        call.cancel()
        return "hung up"


async def records_in(path: Path) -> Records:
    journal = SqliteJournal(path)
    try:
        return [(revision, decode(data)) async for revision, data in journal.read()]
    finally:
        await journal.close()


def kill_and_restart(cluster: ProcessCluster, coordinator: Process, *flags: str) -> Process:
    coordinator.signal(signal.SIGKILL)
    coordinator.wait()
    return cluster.coordinator_again(*flags)


def wait_told(watchers: list[Watcher], round_number: int) -> None:
    """Until everybody knows of this round, from a snapshot or since."""

    def knows(reader: Reader) -> bool:
        messages = [message for chain in reader.chains for message in chain.messages]
        rounds = [event.round for message in messages for event in message.events if event.HasField("round")]
        rounds += [message.snapshot.round for message in messages if message.snapshot.HasField("round")]
        return round_number in rounds

    wait_until(lambda: all(knows(watcher.reader) for watcher in watchers), 60, f"not all know of round {round_number}")


async def test_everybody_is_told_everything(cluster: ProcessCluster, tmp_path: Path) -> None:
    do = asyncio.to_thread
    flags = ("--data-dir", str(tmp_path / "data"), "--snapshot-every", "4")
    coordinator = cluster.coordinator(*flags)
    argv = ("--rdzv-id", "job", "--nnodes", "2", cluster.worker("wait.py"))
    agents = [cluster.agent(node, *argv) for node in NODES]
    await do(cluster.wait_for_round, "job", 0)
    async with contextlib.AsyncExitStack() as open_channels:
        new = [grpc.aio.insecure_channel(cluster.address, options=LOCAL) for _ in range(CONNECTIONS)]
        channels = [await open_channels.enter_async_context(channel) for channel in new]
        watchers = [Watcher(channels[number % len(channels)], number) for number in range(WATCHERS)]
        watching = asyncio.gather(*(watcher.watch() for watcher in watchers))
        await do(wait_told, watchers, 0)
        for number in range(1, KILLS + 1):
            await do(cluster.restart, "job")
            coordinator = await do(kill_and_restart, cluster, coordinator, *flags)
            await do(cluster.wait_for_round, "job", 2 * number - 1)
            await do(cluster.restart, "job")
            await do(wait_told, watchers, 2 * number)
        await do(cluster.cancel, "job")
        await watching
    for agent in agents:
        await do(agent.wait)
    coordinator.signal(signal.SIGTERM)
    assert await do(coordinator.wait) == 0
    records = await records_in(tmp_path / "data" / "journal.db")
    for watcher in watchers:
        check(watcher.reader.chains, records)
        (chain,) = watcher.reader.chains
        assert (watcher.reader.expired, chain.ended) == (0, True)
        assert len(chain.resumed) >= KILLS, "nobody got through a coordinator's end on one stream"
