"""How long the properties are looked into: the same quick look every time, or longer ones that are never the same.

PROPERTY_PROFILE=hunt .venv/bin/pytest tests/property --hypothesis-seed=7
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

_UNHURRIED = settings(
    deadline=None, report_multiple_bugs=False, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
_QUICK = settings(_UNHURRIED, max_examples=150, stateful_step_count=50, derandomize=True, database=None)

PROFILES = {
    "quick": _QUICK,
    "unshrunk": settings(_QUICK, phases=[Phase.explicit, Phase.generate]),
    "hunt": settings(_UNHURRIED, max_examples=1_000, stateful_step_count=50, print_blob=True, database=None),
    "thorough": settings(_UNHURRIED, max_examples=5_000, stateful_step_count=100, print_blob=True),
}
"""``quick`` and ``unshrunk`` are always the same; the latter wants to know only that something is wrong, not how to
come there soonest. ``hunt`` (minutes) and ``thorough`` (hours) draw anew each time, ``hunt`` from --hypothesis-seed.
"""

NAME = os.environ.get("PROPERTY_PROFILE", "quick")
CHOSEN = PROFILES[NAME]

PATIENT = pytest.mark.timeout(600 if CHOSEN.derandomize else 0)
