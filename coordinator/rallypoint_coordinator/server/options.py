"""What a coordinator is started with."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from rallypoint.limits import PORT_DEFAULT
from rallypoint.security.client import is_loopback
from rallypoint.security.server_tls import ServerTls
from rallypoint.values import dataclass

HOST_DEFAULT = "127.0.0.1"
RETAIN_JOBS_DEFAULT = 1_000
RETAIN_NODES_DEFAULT = 100_000
RETAIN_DAYS_DEFAULT = 30
SNAPSHOT_EVERY_DEFAULT = 10_000
CALLS_PER_PEER_DEFAULT = 4_096
KEEP_EVENTS_MIB_DEFAULT = 64

MESSAGE_BYTES_MAX = 4 << 20
METADATA_BYTES_MAX = 8 << 10
"""Of a call's headers together."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host name or address, without brackets, and a port; port 0 means any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; of a name other than localhost that is not known."""
        return is_loopback(self.host)


def parse_address(text: str) -> Address:
    """``HOST:PORT``, an IPv6 address in brackets. Raises ValueError with what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = str(ip_address(host[1:-1]))
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address goes in brackets, as in [::1]:{PORT_DEFAULT}")
    if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ValueError(f"{text!r}: the port must be 0 to 65535")
    return Address(host, int(port))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """``data_dir`` None: decisions are kept in memory. ``embedded``: end when standard input does.
    ``exit_when_idle_s``: end when nobody has been here for so long; None: go on.

    A snapshot is taken after every ``snapshot_every`` records; decided lives beyond ``retain_jobs``, or of more than
    ``retain_nodes`` nodes in all, or older than ``retain_days`` are forgotten then. ``keep_events_mib``: of memory, for
    the events that watchers may still ask for. ``tls`` None: nothing is encrypted. ``token_file`` None: who reaches the
    port, with a certificate if ``tls`` names authorities for clients, may do everything. ``calls_per_peer``: so many
    calls, streams included, one address may have open at once.
    """

    listen: Address
    data_dir: Path | None = None
    retain_jobs: int = RETAIN_JOBS_DEFAULT
    retain_nodes: int = RETAIN_NODES_DEFAULT
    retain_days: int = RETAIN_DAYS_DEFAULT
    snapshot_every: int = SNAPSHOT_EVERY_DEFAULT
    keep_events_mib: int = KEEP_EVENTS_MIB_DEFAULT
    tls: ServerTls | None = None
    token_file: Path | None = None
    calls_per_peer: int = CALLS_PER_PEER_DEFAULT
    embedded: bool = False
    exit_when_idle_s: float | None = None

    @property
    def open_door(self) -> str:
        """What is missing before other machines may reach it; empty if nothing is."""
        if self.listen.is_loopback or (self.tls and (self.token_file or self.tls.client_ca)):
            return ""
        if self.tls is None:
            return "without TLS whoever is on the way reads and changes everything"
        return "without tokens or certificates of clients whoever reaches it may do everything"
