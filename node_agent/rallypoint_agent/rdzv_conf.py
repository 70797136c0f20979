"""``--rdzv-conf``: torchrun's KEY=VALUE pairs, as far as they mean something to ``rallypoint run``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from rallypoint.model import StoreHost
from rallypoint.values import dataclass

DURATIONS = (
    "lease_ttl",
    "join_timeout",
    "last_call_timeout",
    "rejoin_wait",
    "exit_barrier_timeout",
    "coordinator_outage",
)
"""Of the job's policies: torchrun's backend (:mod:`rallypoint_agent.torch.conf`) has them too."""

FLAGS = (*DURATIONS, "max_restarts", "scale_up", "node_name", "connect_timeout")
"""Keys that stand for the flag of the same name, which wins if it is given as well."""

_IS_HOST = "is_host"
_TRUE, _FALSE = ("1", "true", "t", "yes", "y"), ("0", "false", "f", "no", "n")

_WITHOUT_EFFECT = (
    *("timeout", "read_timeout", "close_timeout", "heartbeat_timeout", "keep_alive_interval"),
    *("keep_alive_max_attempt", "store_type", "use_libuv", "rank"),
)
"""Of torch's own backends: how they find and watch one another, which is the coordinator's business here."""


@dataclass(frozen=True, slots=True)
class RdzvConf:
    """``flags``: the texts of those that are given here; ``ignored``: the keys that have no effect.

    ``is_host``: whether a coordinator is started here, should the line be one that needs one; None: its name tells.
    """

    store_host: StoreHost = StoreHost.WORKER
    flags: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    is_host: bool | None = None


def read(given: str) -> RdzvConf:
    """From ``store=agent,join_timeout=600``. Raises ValueError."""
    pairs = dict(_pair(item.strip()) for item in given.split(",") if item.strip())
    for key in pairs:
        if key not in ("store", _IS_HOST, *FLAGS, *_WITHOUT_EFFECT):
            raise ValueError(f"{key} is not known; there are store, {', '.join(FLAGS)}, {_IS_HOST}")
    return RdzvConf(
        store_host=read_store_host(pairs.get("store", "worker")),
        flags={key: value for key, value in pairs.items() if key in FLAGS},
        ignored=tuple(key for key in pairs if key in _WITHOUT_EFFECT),
        is_host=_truth(pairs[_IS_HOST]) if _IS_HOST in pairs else None,
    )


def _pair(item: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in item.partition("="))
    if not (key and equals and value):
        raise ValueError(f"it must be KEY=VALUE,KEY=VALUE, and {item} is not")
    return key, value


def _truth(given: str) -> bool:
    """As torch reads it."""
    word = given.lower()
    if word not in (*_TRUE, *_FALSE):
        raise ValueError(f"{_IS_HOST} must be true or false, not {given}")
    return word in _TRUE


def read_store_host(given: str) -> StoreHost:
    """The value of ``store``. Raises ValueError."""
    if given not in ("worker", "agent"):
        raise ValueError(f"store must be worker or agent, not {given}")
    return StoreHost(given.upper())
