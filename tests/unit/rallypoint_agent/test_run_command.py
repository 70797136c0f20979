"""What begins before the flags are read."""

from __future__ import annotations

import pytest

from rallypoint_agent.embedded_coordinator import EmbeddedCoordinator
from rallypoint_agent.run_command import command, is_standalone


@pytest.mark.parametrize(
    "line", ["--standalone x.py", "--nproc-per-node=2 --standalone x.py", "--no-python --standalone true"]
)
def test_among_the_first_flags_it_is_meant(line: str) -> None:
    assert is_standalone(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x.py --standalone",
        "--coordinator localhost x.py --standalone",
        "-- --standalone",
        "-m --standalone",
        "--standalone-ish x.py",
    ],
)
def test_what_may_be_a_script_or_its_own_is_not(line: str) -> None:
    assert not is_standalone(line.split())


def test_who_has_no_use_for_it_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    started: list[EmbeddedCoordinator] = []

    class Noted(EmbeddedCoordinator):
        def __init__(self) -> None:
            super().__init__()
            started.append(self)

    monkeypatch.setattr("rallypoint_agent.embedded_coordinator.EmbeddedCoordinator", Noted)
    assert command(["--standalone", "--nnodes=2", "--no-python", "true"]) == 2
    assert "--standalone is one node" in capsys.readouterr().err
    assert [coordinator.is_running for coordinator in started] == [False]
