"""What a link is told once."""

from __future__ import annotations

from rallypoint.model import Capability, Endpoint, JobSpec, NodeSpec
from rallypoint.security.client import NO_SECURITY, ClientSecurity
from rallypoint.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """Whom to attach to, and what every Hello says. Raises ValueError without an endpoint.

    ``endpoints`` are all of one cluster; they are tried in turn. ``use_proxy`` lets gRPC go through
    the proxy of the environment; a refused connect then says nothing about the coordinator, and is
    never reported. ``security``: its files are read again for each stream.
    """

    endpoints: tuple[Endpoint, ...]
    job: str
    node: str
    incarnation: str
    job_spec: JobSpec
    node_spec: NodeSpec
    agent_version: str
    capabilities: frozenset[Capability]
    security: ClientSecurity = NO_SECURITY
    use_proxy: bool = False
    welcome_timeout_ms: int = 10_000
    """How long a coordinator may take from the start of the connect to its Welcome.

    Without a lease, from when it has the Hello, twice as long.
    """
    longest_welcome_timeout_ms: int = 60_000
    """It doubles up to this while a coordinator has our Hello and does not answer: that one is there, and busy."""
    probe_timeout_ms: int = 1_000
    """How long a probe waits for a name to resolve, and then for the addresses to answer."""
    first_backoff_ms: int = 100
    longest_backoff_ms: int = 5_000
    """Between two tries to attach, while somebody is there or nobody can tell. They double."""
    first_knock_ms: int = 100
    """Between two probes, while every endpoint refuses. They grow up to a tenth of the heartbeat interval."""

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError("a link needs an endpoint of the coordinator")
