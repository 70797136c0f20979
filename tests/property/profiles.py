"""How long the properties are looked into: the same quick look every time, or a long one that is never the same.

PROPERTY_PROFILE=thorough .venv/bin/pytest tests/property
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
    "thorough": settings(_UNHURRIED, max_examples=5_000, stateful_step_count=100, print_blob=True),
    "hunt": settings(_QUICK, phases=[Phase.explicit, Phase.generate]),
}
"""``hunt`` wants to know only that something is wrong, not the shortest way there."""

NAME = os.environ.get("PROPERTY_PROFILE", "quick")
CHOSEN = PROFILES[NAME]

PATIENT = pytest.mark.timeout(0 if NAME == "thorough" else 600)
