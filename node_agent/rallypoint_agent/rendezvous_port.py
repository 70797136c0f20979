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
  both asked for by number: then the second store to listen fails. So agents that choose from a range also claim the
  port's name among abstract Unix sockets, which live in the network namespace as ports do, and end with their owner.
"""

from __future__ import annotations

import contextlib
import socket

_BACKLOG = 4096
"""Connections that wait to be accepted: all workers of a job may come at once. The kernel has a bound of its own."""


class HeldPort:
    """A port that is ours until ``close``. Closing it again is harmless."""

    def __init__(self, holder: socket.socket, claim: socket.socket | None = None) -> None:
        self._holder = holder
        self._claim = claim
        self.port: int = holder.getsockname()[1]

    def listen(self) -> socket.socket:
        """A socket that listens there, on every address, and stays when this is closed. Raises OSError."""
        with contextlib.ExitStack() as on_error:
            listener = _bind(self._holder.family, self._holder.getsockname()[0], self.port)
            on_error.callback(listener.close)
            listener.listen(_BACKLOG)
            on_error.pop_all()
        return listener

    def close(self) -> None:
        self._holder.close()
        if self._claim is not None:
            self._claim.close()


def hold_port(port: int | None = None) -> HeldPort:
    """Hold this port on every address of the machine, or one that the kernel chooses.

    Raises OSError if the port cannot be had.
    """
    return HeldPort(_holder(port or 0))


def hold_port_in(ports: range, last: HeldPort | None = None) -> HeldPort:
    """Hold the first of these ports that can be had, and that no other agent of this machine has claimed.

    The search begins after the ``last`` one held, which is taken again (and closed before that) only if there is no
    other. Raises OSError, the first port's, if none can be had.
    """
    errors = []
    start = last.port + 1 - ports.start if last is not None and last.port in ports else 0
    for port in (*ports[start:], *ports[:start]):
        if last is not None and port == last.port:
            last.close()
        try:
            return _hold_claimed(port)
        except OSError as error:
            errors.append(error)
    raise errors[0]


def _hold_claimed(port: int) -> HeldPort:
    with contextlib.ExitStack() as on_error:
        claim = on_error.enter_context(socket.socket(socket.AF_UNIX))
        claim.bind(f"\0rallypoint/port/{port}")
        holder = _holder(port)
        on_error.pop_all()
    return HeldPort(holder, claim)


def _holder(port: int) -> socket.socket:
    if not socket.has_dualstack_ipv6():
        return _bind(socket.AF_INET, "0.0.0.0", port)
    return _bind(socket.AF_INET6, "::", port)


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
