"""What a suite is given, and that nothing that a suite began outlives the run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scoreboard.bench import MARK_VARIABLE, Bench
from support.processes import is_alive, wait_until

ORPHAN = "import os, sys, time; os.fork() and sys.exit(); os.setsid(); print(os.getpid(), flush=True); time.sleep(3600)"
# A suite that leaves an orphan, says so, and goes on; run as a scoreboard of its own.
RUN = """
import os, sys, time, types
from scoreboard import __main__ as board
from scoreboard.figures import SECONDS, AtMost, Row
from support.processes import wait_until

def rows(bench):
    yield Row("quick", SECONDS, (1.0,), (AtMost(2.0),))
    log = bench.folder / "log"
    with bench.running([sys.executable, "-c", sys.argv[1]], log) as popen:
        popen.wait()
    print("orphan", wait_until(log.read_text).strip(), flush=True)
    {then}

sys.modules["scoreboard.launch"] = types.SimpleNamespace(rows=rows)
sys.exit(board.main(["--only", "launch", *sys.argv[2:]]))
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv(MARK_VARIABLE, "of-this-test")
    bench = Bench(quick=True, folder=tmp_path, mark="of-this-test")
    yield bench
    bench.sweep()


@contextlib.contextmanager
def run_with(then: str, *flags: str) -> Iterator[subprocess.Popen[str]]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", RUN.format(then=then), ORPHAN, *flags]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def orphan_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    told = iter(process.stdout.readline, "")
    return next(int(line.split()[1]) for line in told if line.startswith("orphan"))


def test_both_sides_take_turns_and_each_begins_every_other_one(bench: Bench) -> None:
    seen = ""

    def side(name: str) -> float:
        nonlocal seen
        seen += name
        return float(len(seen))

    assert bench.in_turns(lambda: side("a"), lambda: side("b"), 3) == ([1.0, 4.0, 5.0], [2.0, 3.0, 6.0])
    assert seen == "abbaab"


def test_a_process_is_killed_at_the_end_of_its_context(bench: Bench, tmp_path: Path) -> None:
    with bench.running(["sleep", "3600"], tmp_path / "log") as popen:
        assert is_alive(popen.pid)
    assert popen.returncode == -signal.SIGKILL


def test_what_left_its_session_and_its_parent_is_swept_too(bench: Bench, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with bench.running([sys.executable, "-c", ORPHAN], log) as popen:
        popen.wait(30)
    orphan = int(wait_until(log.read_text))
    assert is_alive(orphan)
    assert bench.sweep() == 1
    assert not is_alive(orphan)
    assert bench.sweep() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nothing_and_tells_what_it_has(number: signal.Signals) -> None:
    with run_with("time.sleep(3600)") as process:
        orphan = orphan_of(process)
        process.send_signal(number)
        told, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert not is_alive(orphan)
    assert "1 row: 1 pass" in told


def test_a_run_is_saved_beside_its_table(tmp_path: Path) -> None:
    saved = tmp_path / "bench.json"
    with run_with("return", "--save", str(saved)) as process:
        orphan_of(process)
        told, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "1 row: 1 pass" in told
    everything = json.loads(saved.read_text())
    assert everything["facts"]["cores"]
    [row] = everything["rows"]
    assert (row["figure"], row["ours"], row["verdict"]) == ("quick", [1.0], "pass")
    assert row["targets"] == [{"verdict": "pass", "asked": "<= 2 s", "says": "1 s"}]


def test_a_suite_that_raises_is_a_row_that_fails() -> None:
    with run_with("raise OSError('no port')") as process:
        orphan = orphan_of(process)
        told, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert not is_alive(orphan)
    assert "FAIL: OSError: no port" in told
    assert "2 rows: 1 pass, 1 FAIL" in told
