"""The floor: what grpc.aio costs by itself. A stream's messages go back as they came; one that says ALL goes to every
stream. Nothing is parsed, checked, decided or kept, and the garbage collector never runs.

``python -m scoreboard.fleet.echo_server`` prints its address and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import grpc.aio

from rallypoint_coordinator.server.server import OPTIONS

PATH = "/scoreboard.Echo/Talk"
ALL = b"A"
"""A message that begins so is for everybody."""


class _Echo(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._streams: set[Any] = set()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._talk)

    async def _talk(self, requests: object, context: Any) -> None:
        self._streams.add(context)
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                if message.startswith(ALL):
                    await self._tell_all(message)
                else:
                    await context.write(message)
        finally:
            self._streams.discard(context)

    async def _tell_all(self, message: bytes) -> None:
        """One after the other: of all ways the quickest."""
        for stream in list(self._streams):
            await stream.write(message)


async def serve() -> None:
    server = grpc.aio.server(options=list(OPTIONS))
    server.add_generic_rpc_handlers((_Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.collect()
    gc.freeze()
    gc.disable()
    print(f"echo server listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())
