"""A run as text: what came in (``<``), what went out (``>``), what changed (``=``), what was broken (``!``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TextIO

_QUIET = frozenset({"job_spec", "node_spec", "peer", "watchdog", "observe_time_ms", "agent_version"})


class Transcript:
    """Writes to a stream, one line for each thing that happens."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, now_ms: int, mark: str, who: str, what: object) -> None:
        self._stream.write(f"{now_ms / 1000:10.3f}  {who:<14} {mark} {describe(what)}\n")


def describe(value: object) -> str:
    """A value in one line; what is empty or says little is left out."""
    if isinstance(value, str):
        return value
    if isinstance(value, Enum):
        return str(value.value)
    if is_dataclass(value):
        said = ((field.name, getattr(value, field.name)) for field in fields(value) if field.name not in _QUIET)
        inner = ", ".join(f"{name}={describe(item)}" for name, item in said if item not in (None, "", (), 0))
        return f"{type(value).__name__}({inner})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{describe(key)}: {describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list | frozenset):
        return (
            "("
            + ", ".join(sorted(map(describe, value)) if isinstance(value, frozenset) else map(describe, value))
            + ")"
        )
    return str(value)
