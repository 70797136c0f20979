"""torch's TCPStore, served by the agent: for scripts whose rank 0 leaves before the others do."""

from __future__ import annotations

from rallypoint_agent.torch_store.server import StoreServer

__all__ = ["StoreServer"]
