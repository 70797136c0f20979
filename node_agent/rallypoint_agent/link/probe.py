"""Is nobody there? Asked with sockets of our own, because gRPC's errors cannot tell."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Iterable

from rallypoint.model import Endpoint
from rallypoint_agent.link.addresses import Address, resolve


async def all_refused(endpoints: Iterable[Endpoint], timeout_s: float) -> bool:
    """Whether a connect to every address of every endpoint met ECONNREFUSED.

    Names are resolved anew; both that and the connects may take ``timeout_s``. Whatever else
    happens (no address, no route, no answer, a connection) is no refusal.
    """
    found = await asyncio.gather(*(_addresses(endpoint, timeout_s) for endpoint in endpoints))
    if not all(found):
        return False
    addresses = itertools.chain.from_iterable(found)
    return all(await asyncio.gather(*(_is_refused(address, timeout_s) for address in addresses)))


async def _addresses(endpoint: Endpoint, timeout_s: float) -> list[Address]:
    try:
        async with asyncio.timeout(timeout_s):
            return await _resolve_in_thread(endpoint)
    except OSError:  # a timeout is one
        return []


async def _resolve_in_thread(endpoint: Endpoint) -> list[Address]:
    """``resolve`` without blocking the event loop.

    In a daemon thread, not in the loop's executor: nobody has to wait for a resolver that hangs,
    not even the end of the process.
    """
    with contextlib.suppress(OSError):
        return resolve(endpoint, socket.AI_NUMERICHOST)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Address]] = loop.create_future()

    def settle(found: list[Address] | OSError) -> None:
        if answer.done():
            return
        if isinstance(found, OSError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def work() -> None:
        found: list[Address] | OSError
        try:
            found = resolve(endpoint)
        except OSError as error:
            found = error
        # The loop may have ended in the meantime.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=work, name="rallypoint-resolver", daemon=True).start()
    return await answer


async def _is_refused(address: Address, timeout_s: float) -> bool:
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(address.family, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            async with asyncio.timeout(timeout_s):
                await loop.sock_connect(connection, address.sockaddr)
    except ConnectionRefusedError:
        return True
    except OSError:  # a timeout is one
        return False
    return False
