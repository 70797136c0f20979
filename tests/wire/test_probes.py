"""What gRPC adds by itself to what an agent and the coordinator say: no PING, which costs more than what is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from rallypoint.security.client import NO_SECURITY, open_aio_channel
from rallypoint.wire import Heartbeat
from rallypoint_agent import grpc_setup
from support.wire_client import Coordinator, WireAgent, running_coordinator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, PING = 0, 6


@asynccontextmanager
async def overheard(coordinator: Coordinator) -> AsyncIterator[tuple[Coordinator, list[int], list[int]]]:
    """The same over a connection as agents have one, and the kinds of HTTP/2 frames that either end has sent on it."""
    from_agent: list[int] = []
    from_coordinator: list[int] = []
    relays: list[asyncio.Task[None]] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kinds: list[int]) -> None:
        try:
            while True:
                head = await reader.readexactly(9)
                kinds.append(head[3])
                writer.write(head + await reader.readexactly(int.from_bytes(head[:3])))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def accept(near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        far_reader, far = await asyncio.open_connection(coordinator.address.host, coordinator.address.port)
        far.write(await near_reader.readexactly(len(PREFACE)))
        for reader, writer, kinds in ((near_reader, far, from_agent), (far_reader, near, from_coordinator)):
            relays.append(asyncio.create_task(relay(reader, writer, kinds)))

    options = grpc_setup.channel_options(use_proxy=False)
    async with await asyncio.start_server(accept, "127.0.0.1", 0) as listener:
        host, port = listener.sockets[0].getsockname()
        async with open_aio_channel(f"{host}:{port}", NO_SECURITY, options) as channel:
            yield replace(coordinator, channel=channel), from_agent, from_coordinator
        for task in relays:
            task.cancel()
        await asyncio.wait(relays)


async def test_neither_side_probes_how_much_the_other_could_take() -> None:
    async with running_coordinator() as near, overheard(near) as (coordinator, from_agent, from_coordinator):
        agent = WireAgent(coordinator)
        await agent.attach()
        await agent.hold()
        await agent.send(Heartbeat(agent.version))
        await agent.acked(agent.seq)
    assert from_agent.count(DATA) >= 2
    assert from_coordinator.count(DATA) >= 2
    assert PING not in from_agent
    assert PING not in from_coordinator
