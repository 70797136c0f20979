"""What every test relies on."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

# A machine that is busy with other things is no failure of the code.
settings.register_profile("rallypoint", deadline=None)
settings.load_profile("rallypoint")


def pytest_configure(config: pytest.Config) -> None:
    """A shell's background job ignores what a terminal sends, and so would every process that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
