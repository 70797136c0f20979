"""Names to addresses, and which address of this machine leads there."""

from __future__ import annotations

import contextlib
import socket
from typing import NamedTuple

from rallypoint.model import Endpoint

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


_LABEL_BYTES = 64
"""Each part of a name between two dots is shorter than this."""


class Address(NamedTuple):
    """One address of a name, as a socket of ``family`` takes it."""

    family: socket.AddressFamily
    sockaddr: SocketAddress


def resolve(endpoint: Endpoint, flags: int = socket.AI_ADDRCONFIG) -> list[Address]:
    """Every address of the endpoint, in families that this machine has. Blocks.

    Raises OSError if there is none.
    """
    try:
        found = socket.getaddrinfo(_encoded(endpoint.host), endpoint.port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError as error:
        raise OSError(f"not a host name: {endpoint.host!r}") from error
    return [Address(family, sockaddr) for family, _, _, _, sockaddr in found]  # type: ignore[arg-type]


def local_address_towards(endpoint: Endpoint) -> str | None:
    """The address of this machine on the route to the endpoint; None if there is no route.

    Connecting a datagram socket chooses the route and sends nothing: it needs no listener there,
    and waits for none. May block on the resolver.
    """
    with contextlib.suppress(OSError):
        for family, sockaddr in resolve(endpoint):
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(sockaddr)
                return str(probe.getsockname()[0])
    return None


def _encoded(host: str) -> str | bytes:
    """Text is encoded by IDNA, for which Python imports tables: no need to for most names, with all labels short."""
    return host.encode("ascii") if host.isascii() and len(host) < _LABEL_BYTES else host
