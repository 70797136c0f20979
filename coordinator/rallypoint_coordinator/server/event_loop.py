"""The coordinator's event loop: asyncio's, which hears at once of all that gRPC has completed.

A thread of grpc.aio queues what gRPC completes, and writes a byte to a socket for each. What the loop calls once that
socket can be read takes one byte from it, and all that is queued. So after a hundred completions the loop would turn
ninety-nine times more, for nothing; and as such a socket holds 278 of these bytes, that thread would soon wait at each
completion until the loop has come round. With ten thousand agents that was a turn of the loop for every message.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVarTuple

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

Args = TypeVarTuple("Args")

COMPLETION_HANDLER = "_handle_events"
"""What grpc.aio calls its method of that kind."""

WAKES_AT_ONCE = 1024
"""More than such a socket holds."""


class ServerLoop(asyncio.SelectorEventLoop):
    """Answers all wakes of gRPC that wait in one turn. A handler that grpc.aio would name otherwise has one a turn.

    For a process in which no other loop uses grpc.aio: it has one socket for all loops, and one could take the bytes
    of what another has not heard of.
    """

    def add_reader(self, fd: FileDescriptorLike, callback: Callable[[*Args], Any], *args: *Args) -> None:
        if isinstance(fd, socket.socket) and _takes_completions(callback):
            super().add_reader(fd, _for_all_wakes, fd, partial(callback, *args))
        else:
            super().add_reader(fd, callback, *args)


def _takes_completions(callback: Callable[..., Any]) -> bool:
    return isinstance(callback, partial) and getattr(callback.func, "__name__", "") == COMPLETION_HANDLER


def _for_all_wakes(wakes: socket.socket, handle: Callable[[], object]) -> None:
    """Once for all that wait by now, with the last of their bytes still to be read. It never waits.

    A completion is queued before its byte is written, so none is left behind.
    """
    waiting = len(wakes.recv(WAKES_AT_ONCE, socket.MSG_PEEK))
    if waiting > 1:
        wakes.recv(waiting - 1)
    handle()
