"""What every test relies on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

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


@pytest.fixture(autouse=True)
def the_environment_is_left_as_found() -> Iterator[None]:
    """What one test makes the process set, the processes of the next one would inherit."""
    before = dict(os.environ)
    yield
    own = {"PYTEST_CURRENT_TEST"}
    for name in os.environ.keys() - before.keys() - own:
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name not in own})
