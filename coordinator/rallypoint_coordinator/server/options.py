"""What a coordinator is started with."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from rallypoint.limits import PORT_DEFAULT

HOST_DEFAULT = "127.0.0.1"
RETAIN_JOBS_DEFAULT = 1_000
RETAIN_DAYS_DEFAULT = 30
SNAPSHOT_EVERY_DEFAULT = 10_000


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
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


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

    A snapshot is taken after every ``snapshot_every`` records; decided lives beyond ``retain_jobs`` or older than
    ``retain_days`` are forgotten then.
    """

    listen: Address
    data_dir: Path | None = None
    retain_jobs: int = RETAIN_JOBS_DEFAULT
    retain_days: int = RETAIN_DAYS_DEFAULT
    snapshot_every: int = SNAPSHOT_EVERY_DEFAULT
    embedded: bool = False
    exit_when_idle_s: float | None = None
