"""The page's table of torch's members says what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rallypoint_agent.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from rallypoint_agent.simple_elastic_agent import SimpleElasticAgent
from support.fake_link import FakeLink

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"
ROWS = re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)


class FourMethods(SimpleElasticAgent):
    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, int]:
        return {}

    def _stop_workers(self, worker_group: WorkerGroup) -> None:  # type: ignore[override]  # torch 2.13's signature
        pass

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        return RunResult(WorkerState.SUCCEEDED)

    def _shutdown(self, death_sig: int = 15, timeout: float = 30) -> None:
        pass


def test_the_page_has_the_table() -> None:
    assert len(ROWS) == 22


@pytest.mark.parametrize(("member", "here"), ROWS, ids=[member for member, _ in ROWS])
def test_a_member_of_torchs_is_there_unless_it_is_left_out(member: str, here: str) -> None:
    link = FakeLink(lambda link, observed: None)
    agent = FourMethods(WorkerSpec("default", 1, link, entrypoint="true"))
    assert hasattr(agent, member) != here.startswith("left out: ")
    link.close()
