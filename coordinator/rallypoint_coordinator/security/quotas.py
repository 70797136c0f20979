"""How much one peer may have: of failed authentication, and of calls at once. Pure; time comes in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_network

PEERS_MAX = 4_096
"""So many peers that failed are remembered; then the one that failed longest ago is forgotten."""

_SITE_BITS = 64
"""Of an IPv6 address: whoever has one has all the others of its site as well."""


def peer_key(address: str) -> str:
    """What counts as one peer: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address  # as nearly all are
    try:
        found = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ip_network((found, _SITE_BITS), strict=False))


@dataclass(slots=True)
class Failures:
    """A bucket of ``burst`` for each peer, filled at ``per_s``. Each failed authentication takes one out.

    Good credentials are never asked about here: an address may be shared, and a token cannot be guessed. What is
    bounded is what failures cost us in answers and in lines of the log.
    """

    burst: float = 20.0
    per_s: float = 0.5
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    """What is left in each, and when that was so; the newest last."""

    def allow(self, peer: str, now_s: float) -> bool:
        """Take one. False: there is none; how long until there is one says ``wait_s``."""
        left = self._left(peer, now_s)
        taken = left >= 1.0
        self._buckets[peer] = (left - 1.0 if taken else left, now_s)
        self._buckets.move_to_end(peer)
        if len(self._buckets) > PEERS_MAX:
            self._buckets.popitem(last=False)
        return taken

    def wait_s(self, peer: str, now_s: float) -> float:
        return max(0.0, (1.0 - self._left(peer, now_s)) / self.per_s)

    def _left(self, peer: str, now_s: float) -> float:
        left, then_s = self._buckets.get(peer, (self.burst, now_s))
        return min(self.burst, left + max(0.0, now_s - then_s) * self.per_s)


@dataclass(slots=True)
class Calls:
    """How many calls each peer has open."""

    _open: dict[str, int] = field(default_factory=dict)

    def enter(self, peer: str, most: int) -> bool:
        """Count one more, unless there are ``most``."""
        count = self._open.get(peer, 0)
        if count >= most:
            return False
        self._open[peer] = count + 1
        return True

    def leave(self, peer: str) -> None:
        """One that had entered is over."""
        count = self._open.pop(peer) - 1
        if count:
            self._open[peer] = count
