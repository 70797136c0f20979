"""Durations as people write them on command lines."""

from __future__ import annotations

import re

from rallypoint.limits import DURATION_MS_MAX

_MS = {"ms": 1, "s": 1_000, "": 1_000, "m": 60_000, "h": 3_600_000}


def duration_ms(given: str) -> int:
    """Milliseconds in ``30s``, ``10m``, ``1h``, ``500ms`` or plain seconds. Raises ValueError, with what it must be."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)", given.strip())
    if found is None:
        raise ValueError("it must be a number and one of ms, s, m, h, as in 30s")
    value = float(found[1]) * _MS[found[2]]
    if value > DURATION_MS_MAX:
        raise ValueError("it must be at most a year, which is 8760h")
    return round(value)


def timeout_ms(given: str) -> int:
    """A duration in which something may happen: more than none."""
    value = duration_ms(given)
    if value == 0:
        raise ValueError("it must be more than 0 s")
    return value
