"""Services as generated code adds them: none of their methods is registered with gRPC."""

from __future__ import annotations

from typing import cast

import grpc
import grpc.aio
from grpc_health.v1.health_pb2_grpc import HealthServicer, add_HealthServicer_to_server

from rallypoint_coordinator.server.looked_up import looked_up


class Server:
    """What a service is added to, and with what."""

    def __init__(self) -> None:
        self.handlers: list[grpc.GenericRpcHandler] = []
        self.registered: list[str] = []

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        self.handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        self.registered.append(service)


def test_methods_are_looked_up_only() -> None:
    server = Server()
    add_HealthServicer_to_server(HealthServicer(), looked_up(cast(grpc.aio.Server, server)))
    assert len(server.handlers) == 1
    assert not server.registered
