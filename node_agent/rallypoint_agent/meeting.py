"""Where the nodes of a command line meet: what torchrun's rendezvous flags come to here. No I/O.

torchrun's own backends need nobody started by hand: an agent of the host that the line names serves the store. So
such a line has a coordinator started on that host. Facts about torchrun are those of torch 2.13 (run.py,
c10d_rendezvous_backend.py, static_tcp_rendezvous.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, auto
from typing import Any

from rallypoint.limits import PORT_DEFAULT
from rallypoint.model import Endpoint
from rallypoint.values import dataclass

RDZV_ID_DEFAULT = "none"
MASTER_ADDR_DEFAULT = "127.0.0.1"
MASTER_PORT_DEFAULT = 29_500
"""These three are torchrun's."""

_BELOW_MASTER_PORT = 100
_PRIVILEGED = 1024
_SEVERAL_BY_HAND = (
    "several nodes need a coordinator: give --coordinator HOST:PORT, or --master-addr and --node-rank as to torchrun"
)


class Hosting(Enum):
    """Whether an agent starts the coordinator, if nobody answers at its address."""

    NEVER = auto()
    """It was started by somebody else, or is a single agent's own."""
    IF_NAMED = auto()
    """If the address is one of the agent's host."""
    HERE = auto()
    """The command line says that it is this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """``coordinators``: none means one of the agent's own. ``job``: "" if nobody else needs to know its name.

    ``started_by_agents``: one of the job's agents starts it, ours or another. ``master_addr`` and ``master_port``:
    where workers meet if rank 0 is on this node. ``needs_all``: the job runs with all of its nodes or not at all.
    ``ignored``: flags that were given and mean nothing to this kind of line.
    """

    coordinators: tuple[Endpoint, ...] = ()
    job: str = ""
    hosting: Hosting = Hosting.NEVER
    started_by_agents: bool = False
    master_addr: str | None = None
    master_port: int | None = None
    needs_all: bool = False
    ignored: tuple[str, ...] = ()


def meeting(values: Mapping[str, Any]) -> Meeting:
    """``values``: those of the flags, by name. Raises ValueError for what makes no sense together."""
    endpoints, backend = values["coordinator"], values["rdzv_backend"]
    several = values["nnodes"][1] > 1
    if values["standalone"] and several:
        raise ValueError("--standalone is one node: --nnodes asks for more")
    by_flags = Meeting(job=values["rdzv_id"], master_addr=values["master_addr"], master_port=values["master_port"])
    if values["standalone"] or not (endpoints or several):
        return by_flags
    if endpoints and backend == "rallypoint":
        return _by_hand(by_flags, endpoints, several)
    if endpoints or backend == "c10d":
        return _at_endpoint(by_flags, values, several)
    if backend == "static" or any(values[name] is not None for name in ("master_addr", "master_port", "node_rank")):
        return _static(by_flags, values)
    raise ValueError(_SEVERAL_BY_HAND)


def coordinator_port(master_port: int) -> int:
    """Of a static line's coordinator: every node knows it, and the workers' store has the master port.

    Not the one above: who runs several jobs on a host counts master ports up.
    """
    below = master_port - _BELOW_MASTER_PORT
    return below if below >= _PRIVILEGED else master_port + _BELOW_MASTER_PORT


def _by_hand(by_flags: Meeting, endpoints: tuple[Endpoint, ...], several: bool) -> Meeting:
    if free := [endpoint for endpoint in endpoints if endpoint.port == 0]:
        raise ValueError(f"--coordinator {free[0].host}:0: a port must be 1 to 65535")
    if several and not by_flags.job:
        raise ValueError("several nodes need the job's name: give --rdzv-id")
    return replace(by_flags, coordinators=endpoints)


def _at_endpoint(by_flags: Meeting, values: Mapping[str, Any], several: bool) -> Meeting:
    """The coordinator takes the place of torchrun's store. As with torchrun, the master's flags mean nothing then."""
    endpoints = values["coordinator"] or (Endpoint("localhost", PORT_DEFAULT),)
    ignored = tuple(
        f"--{name.replace('_', '-')}" for name in ("master_addr", "master_port") if values[name] is not None
    )
    here = Meeting(job=by_flags.job, ignored=ignored)
    if any(endpoint.port == 0 for endpoint in endpoints):
        if several:
            raise ValueError("--rdzv-endpoint with port 0 is any free port, which other nodes cannot know: give a port")
        return here
    is_static = values["rdzv_backend"] == "static"
    return replace(
        here,
        coordinators=endpoints,
        job=by_flags.job or RDZV_ID_DEFAULT,
        hosting=_hosting(values, endpoints, is_static=is_static),
        started_by_agents=len(endpoints) == 1,
        needs_all=is_static,
    )


def _static(by_flags: Meeting, values: Mapping[str, Any]) -> Meeting:
    """Workers meet at the master's address and port, as their script expects, and agents near it."""
    addr, port = by_flags.master_addr or MASTER_ADDR_DEFAULT, by_flags.master_port or MASTER_PORT_DEFAULT
    endpoints = (Endpoint(addr, coordinator_port(port)),)
    holds_port = not values["node_rank"] and values["port_range"] is None
    return Meeting(
        coordinators=endpoints,
        job=by_flags.job or RDZV_ID_DEFAULT,
        hosting=_hosting(values, endpoints, is_static=True),
        started_by_agents=True,
        # Rank 0 is on no other node; there both may be somebody else's.
        master_addr=addr if values["node_rank"] == 0 else None,
        master_port=port if holds_port else None,
        needs_all=True,
    )


def _hosting(values: Mapping[str, Any], endpoints: tuple[Endpoint, ...], *, is_static: bool) -> Hosting:
    """As torch: ``is_host`` of --rdzv-conf; the static backend's host is node rank 0; else the name tells."""
    is_host = values["rdzv_conf"].is_host
    if len(endpoints) > 1 or is_host is False:
        return Hosting.NEVER
    return Hosting.HERE if is_host or (is_static and values["node_rank"] == 0) else Hosting.IF_NAMED
