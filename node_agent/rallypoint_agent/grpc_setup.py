"""How gRPC is set up in this process: its environment, and the options of its channels.

Imports no gRPC itself, so that :func:`prepare_environment` can run before whatever does, and nothing else that costs
the obituary time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from rallypoint.endpoints import target as target

_FORCED = {
    # We never fork in a process that has gRPC in it, and its fork handlers complain when others do.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}
_DEFAULTS = {
    # Else gRPC itself may write to stderr that a coordinator said goodbye.
    "GRPC_VERBOSITY": "ERROR",
    # What comes in is read by the thread that hands it to asyncio, and not by another one that wakes a third: an eighth
    # of an agent's CPU time in a restart. The coordinator has it so for its listener (cli.py), which is named here for
    # one that inherits this.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener",
}

_before: dict[str, str | None] = {}
"""What the variables that we set were, by name, before that."""

CONNECT_TIMEOUT_MS = 5_000
"""How long one connect, TLS and HTTP/2 settings included, may take."""

_KEEPALIVE_TIME_MS = 10_000
_KEEPALIVE_TIMEOUT_MS = 5_000


def prepare_environment() -> None:
    """Set gRPC's variables. Call it from the main thread, before gRPC is imported; again is harmless."""
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in os.environ}
    for name, value in (_FORCED | defaults).items():
        _before.setdefault(name, os.environ.get(name))
        os.environ[name] = value


def restore_environment() -> None:
    """Take back what :func:`prepare_environment` set. Call it once gRPC has read it, with its first channel."""
    while _before:
        name, value = _before.popitem()
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def scrubbed_environ() -> dict[str, str]:
    """``os.environ`` as it was without :func:`prepare_environment`: what a worker should inherit."""
    environ = dict(os.environ)
    for name, value in _before.items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value
    return environ


def channel_options(*, use_proxy: bool) -> Sequence[tuple[str, int]]:
    """For a channel that is used for one stream or call and then closed.

    Trying again is our own business, with our own backoff, on a fresh channel: it connects at once,
    where an old one would sit out a backoff of its own, and it resolves the name anew.
    """
    return (
        ("grpc.enable_http_proxy", int(use_proxy)),
        # Else channels of one process share connections, and what one did to them.
        ("grpc.use_local_subchannel_pool", 1),
        # Else the answer to a Hello sets off a PING, to find out how much could be under way at once: more work than to
        # read the answer. Nothing is so large.
        ("grpc.http2.bdp_probe", 0),
        # A frozen peer is noticed within 15 s. Without the third one it takes a minute.
        ("grpc.keepalive_time_ms", _KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # Despite its name this is what bounds one connect, and the only one of gRPC's backoff options that such a
        # channel comes to use.
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    )
