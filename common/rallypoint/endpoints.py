"""HOST:PORT, as people write it and as gRPC wants it. Imports nothing that costs."""

from __future__ import annotations

import re

from rallypoint.limits import PORT_DEFAULT

PORT_MAX = 65_535


def parse_endpoint(given: str, *, least_port: int = 1) -> tuple[str, int]:
    """Host and port of ``HOST``, ``HOST:PORT`` or ``[IPV6]:PORT``. Raises ValueError, with what it must be."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:\[\]/]+)(?::([0-9]+))?", given.strip())
    if found is None:
        raise ValueError("it must be HOST:PORT, an IPv6 address in brackets")
    port = found[2] or str(PORT_DEFAULT)
    if len(port) > len(str(PORT_MAX)) or not least_port <= int(port) <= PORT_MAX:
        raise ValueError(f"a port must be {least_port} to {PORT_MAX}")
    return found[1].strip("[]"), int(port)


def target(endpoint: tuple[str, int]) -> str:
    """Host and port as gRPC wants them: an IPv6 address goes into brackets."""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
