"""The example, with real torch and gloo, loses a worker and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.recovery import recover

pytest.importorskip("torch")


def test_a_killed_worker_costs_one_restart_on_every_node(tmp_path: Path) -> None:
    seen = recover(tmp_path, victim=0)
    assert seen.in_one_restart, seen.transcript
    assert seen.state == "JOB_STATE_SUCCEEDED"
    assert seen.resumed_from >= [4]
    assert seen.accuracy > 0.9
