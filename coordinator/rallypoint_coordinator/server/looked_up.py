"""Methods that are looked up when they are called, not registered with gRPC before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import grpc
import grpc.aio


def looked_up(server: grpc.aio.Server) -> grpc.aio.Server:
    """The server, for generated code to add services to: what it would register as well is looked up only.

    For each registered method grpc.aio has a task that waits for its next call, and whichever is called, it begins and
    ends a wait for all of them.
    """
    return cast(grpc.aio.Server, _LookedUp(server))


class _LookedUp:
    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """All of them are among the generic ones too."""
