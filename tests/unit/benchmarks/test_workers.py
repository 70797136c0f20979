"""The workers of the benchmarks, and what is read of them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from scoreboard.workers import PYTHON, SHELL, Note, Workers


@pytest.mark.parametrize("script", [SHELL, PYTHON])
def test_a_worker_notes_when_it_began_and_who_it_is(tmp_path: Path, script: str) -> None:
    workers = Workers(tmp_path, script)
    before = time.time()
    with subprocess.Popen(workers.command, env=os.environ | {"RANK": "3", "TORCHELASTIC_RESTART_COUNT": "2"}) as worker:
        [note] = workers.wait_for(1)
        worker.kill()
    assert before <= note.at <= time.time()
    assert note == Note(note.at, rank=3, restart_count=2, pid=worker.pid)


def test_a_note_that_is_being_written_is_none(tmp_path: Path) -> None:
    workers = Workers(tmp_path)
    notes = Path(workers.command[1])
    notes.write_text("1.5 0 0 11\n1.6 1 0 ")
    assert workers.notes() == [Note(1.5, 0, 0, 11)]


def test_workers_that_do_not_come_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="0 of 2 workers began within 0 s"):
        Workers(tmp_path).wait_for(2, timeout=0)
