"""A relay for TCP connections on loopback, which can break them all."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType

CHUNK = 65_536


class TcpProxy:
    """A context. What connects to ``address`` is relayed to ``target``, both HOST:PORT, until either end closes.

    ``latency_s``: so long nothing is relayed at first.
    """

    def __init__(self, target: str, latency_s: float = 0.0) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._latency_s = latency_s
        self._writers: set[asyncio.StreamWriter] = set()
        self._relays: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=asyncio.run, args=[self._serve()])
        self._started = threading.Event()
        self.address = ""

    def __enter__(self) -> TcpProxy:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def cut(self) -> int:
        """Reset every connection; how many there were. Later ones are relayed as before."""

        async def cut() -> int:
            return self._reset_all()

        return asyncio.run_coroutine_threadsafe(cut(), self._loop).result()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(self._accept, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            self.address = f"{host}:{port}"
            self._started.set()
            await self._stop.wait()
            self._reset_all()
            await asyncio.gather(*self._relays)

    def _accept(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        relay = asyncio.create_task(self._relay(near_reader, near))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._latency_s)
        try:
            far_reader, far = await asyncio.open_connection(self._host, self._port)
        except OSError:
            near.transport.abort()
            return
        both = {near, far}
        self._writers |= both
        await asyncio.gather(self._pump(near_reader, far), self._pump(far_reader, near))
        self._writers -= both

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                sink.write(data)
                await sink.drain()
        sink.close()

    def _reset_all(self) -> int:
        for writer in self._writers:
            writer.transport.abort()
        return len(self._writers) // 2
