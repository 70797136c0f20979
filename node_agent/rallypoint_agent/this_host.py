"""Is that this machine?"""

from __future__ import annotations

import socket
from ipaddress import ip_address

from rallypoint.model import Endpoint
from rallypoint_agent.link.addresses import Address, resolve


def names_this_host(host: str) -> bool:
    """Whether a host name or address is this machine's. May block on the resolver.

    As torch's c10d backend finds out whether it hosts the store: localhost, the host name, the fully qualified one, or
    what resolves to an address of this machine; and those of every network interface. A name that reaches this machine
    by another one's address (a load balancer, a Kubernetes Service) is not known to.
    """
    if host.lower() in ("localhost", socket.gethostname().lower()):
        return True
    try:
        addresses = resolve(Endpoint(host, 0))
    except OSError:
        addresses = []
    return any(map(_is_ours, addresses)) or host.lower() == socket.getfqdn().lower()


def is_loopback_name(host: str) -> bool:
    """Whether it says by itself that other machines cannot reach it: ``localhost``, 127.0.0.1, ::1.

    A host's own name may resolve to such an address on that host, and mean another one elsewhere.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_ours(address: Address) -> bool:
    """The kernel binds a socket to addresses of this machine alone. Nothing is sent."""
    with socket.socket(address.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(address.sockaddr)
        except OSError:
            return False
    return True
