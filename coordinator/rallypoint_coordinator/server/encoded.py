"""Messages that go out as bytes: what many are told is encoded once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import grpc
import grpc.aio

from rallypoint import wire
from rallypoint.model import Directive
from rallypoint.wire import Ack, CoordinatorMessage

Handlers: TypeAlias = "dict[str, grpc.RpcMethodHandler[Any, bytes]]"


def add_encoded(server: grpc.aio.Server, service: str, handlers: Handlers, rest: Callable[[], None]) -> None:
    """Serve methods that answer with bytes, in place of those of their names that ``rest`` adds with the others.

    For a server of :func:`.looked_up.looked_up`: there the first handler that is found counts.
    """
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    rest()


class Encoder:
    """Encodes what agents are told.

    A directive that is the very same object as the one before is not encoded anew: the core gives one to all to whom
    it says the same, and they are told one after the other.
    """

    def __init__(self) -> None:
        self._directive: Directive | None = None
        self._data = b""

    def encode(self, message: CoordinatorMessage) -> bytes:
        if isinstance(message, Ack):
            return _ack(message.seq)
        if isinstance(message, Directive):
            if message is not self._directive:
                self._directive, self._data = message, _encoded(message)
            return self._data
        return _encoded(message)


def _encoded(message: CoordinatorMessage) -> bytes:
    return wire.attach_response_to_proto(message).SerializeToString()


@lru_cache(maxsize=4096)
def _ack(seq: int) -> bytes:
    """Streams that have lived as long have sent as many messages, so most acknowledgements are alike."""
    return _encoded(Ack(seq))
