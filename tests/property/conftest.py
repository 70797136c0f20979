from __future__ import annotations

import pytest

from property.profiles import CHOSEN, NAME


def pytest_configure(config: pytest.Config) -> None:
    if CHOSEN.derandomize and config.getoption("hypothesis_seed", None) is not None:
        raise pytest.UsageError(
            f"--hypothesis-seed changes nothing: the {NAME} look at the properties is always the same."
            " With PROPERTY_PROFILE=hunt it does"
        )
