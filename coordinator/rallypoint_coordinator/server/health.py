"""grpc.health.v1: one answer for the server as a whole and for each of its services."""

from __future__ import annotations

from collections.abc import Iterable

from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse


class Health:
    """NOT_SERVING until the driver serves, and whenever it does not."""

    def __init__(self, services: Iterable[str]) -> None:
        self.servicer = health.aio.HealthServicer()
        self._services = (health.OVERALL_HEALTH, *services)

    async def set_serving(self, serving: bool) -> None:
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self.servicer.set(service, status)
