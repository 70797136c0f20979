"""Who calls."""

from __future__ import annotations

from urllib.parse import unquote


def peer_address(peer: str) -> str:
    """The address in gRPC's name of a peer, without the port: ``ipv6:%5B::1%5D:443`` is ``::1``; else empty."""
    family, _, rest = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")
