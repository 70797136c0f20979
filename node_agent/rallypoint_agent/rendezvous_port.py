"""Holding the port where the workers of a round will meet.

The store of rank 0's worker listens there, some time after the port was chosen. Until then, and until the round ends,
nothing else on the machine must get it. So the agent keeps a socket bound to it that never listens.

What Linux does with such a socket (tried on 6.18):

- A listener with SO_REUSEADDR can bind over it, dual-stack or IPv4 alone. torch's TCPStore sets that, on libuv and
  without. A bind without it is refused.
- The kernel never hands the port out by itself, neither for a bind to port 0 (with SO_REUSEADDR or SO_REUSEPORT or
  none) nor as the local port of a connect. Without SO_REUSEADDR on our side the listener could not bind; SO_REUSEPORT
  adds nothing, and would let strangers of the same user share the port.
- A connect to it is refused until somebody listens, so workers that come early know to try again.
- While somebody listens the port cannot be held a second time. But two sockets that only hold can share a port that
  both asked for by number: then the second store to listen fails.
"""

from __future__ import annotations

import contextlib
import socket


class HeldPort:
    """A port that is ours until ``close``. Closing it again is harmless."""

    def __init__(self, holder: socket.socket) -> None:
        self._holder = holder
        self.port: int = holder.getsockname()[1]

    def close(self) -> None:
        self._holder.close()


def hold_port(port: int | None = None) -> HeldPort:
    """Hold this port on every address of the machine, or one that the kernel chooses.

    Raises OSError if the port cannot be had.
    """
    if not socket.has_dualstack_ipv6():
        return HeldPort(_bind(socket.AF_INET, "0.0.0.0", port or 0))
    return HeldPort(_bind(socket.AF_INET6, "::", port or 0))


def _bind(family: socket.AddressFamily, wildcard: str, port: int) -> socket.socket:
    with contextlib.ExitStack() as on_error:
        holder = socket.socket(family, socket.SOCK_STREAM)
        on_error.callback(holder.close)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        holder.bind((wildcard, port))
        on_error.pop_all()
    return holder
