"""The output of real workers, from their pens to the agent's console; their errors, to its last words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Process, ProcessCluster
from support.disk import small_disk
from support.entry_points import write_entry_points
from support.processes import MARK_VARIABLE, wait_until

FLOOD_MB = 300


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For the workers to leave something in."""
    made = tmp_path / "left"
    made.mkdir()
    return made


def run(cluster: ProcessCluster, *argv: str, **env: str) -> Process:
    return cluster.start("agent", "run", "--node-name", "node-a", *argv, TMPDIR=str(cluster.folder), **env)


def test_no_lines_are_mixed(cluster: ProcessCluster, tmp_path: Path) -> None:
    flags = ["--nproc-per-node", "8", "--tee", "3", "--log-dir", str(tmp_path / "logs")]
    agent = run(cluster, *flags, cluster.worker("chatter.py"))
    assert agent.wait() == 0
    expected = Counter(
        f"[default{rank}]:<rank {rank} line {number} {'x' * (number % 90)}>"
        for rank in range(8)
        for number in range(300)
    )
    assert Counter(agent.out.read_text().splitlines()) == expected
    shown = [line for line in agent.err.read_text().splitlines() if not line.startswith("rallypoint[")]
    assert Counter(shown) == expected


def peak_mb(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) // 1000


def test_a_flood_that_nobody_reads_holds_nobody_up_and_costs_no_memory(
    cluster: ProcessCluster, tmp_path: Path, folder: Path
) -> None:
    logs = tmp_path / "logs"
    flags = ["--standalone", "--nproc-per-node", "2", "--tee", "1", "--log-dir", str(logs)]
    env = {"DONE": str(folder), "FLOOD_MB": str(FLOOD_MB), "TMPDIR": str(cluster.folder), MARK_VARIABLE: cluster.mark}
    argv = [sys.executable, "-m", "rallypoint", "run", *flags, cluster.worker("flood.py")]
    with subprocess.Popen(argv, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as agent:
        wait_until(lambda: {path.name for path in folder.iterdir()} == {"0", "1"}, 90)
        wait_until(lambda: not cluster.pids("keeper/child.py"))
        peak = peak_mb(agent.pid)
        out, _ = agent.communicate(timeout=60)
        assert agent.returncode == 0
    lines = out.decode().splitlines()
    assert "[default1]:rank 1 is here" in lines
    assert lines[-1] == f"[default0]:{FLOOD_MB * 1_000_000 // 12 - 1:011}"
    (notice,) = [line for line in lines if "not shown" in line]
    found = re.fullmatch(r"\[default0\]:<([0-9,]+) bytes are not shown, being too many at once: see (\S+)>", notice)
    assert found
    flood = Path(found[2])
    assert flood == next(logs.rglob("0/stdout.log"))
    numbers = sum(bool(re.fullmatch(r"\[default0\]:\d{11}", line)) for line in lines)
    assert numbers * 12 + int(found[1].replace(",", "")) == flood.stat().st_size == FLOOD_MB * 1_000_000 // 12 * 12
    assert peak < 120, "it keeps nothing of what it could not show"


def test_ranks_that_said_the_same_are_folded(cluster: ProcessCluster, folder: Path) -> None:
    flags = ["--nproc-per-node", "4", cluster.worker("end_badly.py")]
    agent = run(cluster, *flags, ENDING="raise", MEET=str(folder))
    assert agent.wait() == 1
    report = agent.err.read_text().partition("Root cause: ")[2]
    assert report.count("Traceback (most recent call last)") == 1
    culprit = int(report.removeprefix("rank ").partition(" ")[0])
    found = re.findall(r"^(May have failed first: rank|Ranks?) (\d)(?:, (\d))? on node-a(.*)", report, re.MULTILINE)
    said = {int(rank): words for first, *ranks, words in found for rank in ranks if rank and "May" not in first}
    # Who failed within the same millisecond may have been first as well.
    tied = {int(ranks[0]) for first, *ranks, _ in found if "May" in first}
    assert said.keys() | tied == {0, 1, 2, 3} - {culprit}
    same = {rank: " said the same" if rank % 2 == culprit % 2 else " said the same but for numbers" for rank in said}
    assert said == same


def test_a_torn_error_file_is_told_and_the_job_goes_on(cluster: ProcessCluster, folder: Path, tmp_path: Path) -> None:
    left = tmp_path / "error.json"
    flags = ["--max-restarts", "1", cluster.worker("end_badly.py")]
    agent = run(cluster, *flags, ENDING="torn", MEET=str(folder), TORCHELASTIC_ERROR_FILE=str(left))
    assert agent.wait() == 1
    assert "round 1: rank 0 of 1, restart 1 of 1" in agent.output
    report = agent.err.read_text().partition("Root cause: ")[2]
    assert "exit code 7; its error file holds no JSON" in report
    message = json.loads(left.read_text())["message"]
    assert message["errorCode"] == 7
    assert message["message"].startswith("exit code 7")


def test_a_worker_that_had_no_room_for_its_log_is_told_so(
    cluster: ProcessCluster, folder: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        flags = ["--redirects", "1", "--log-dir", str(disk.path), cluster.worker("flood.py")]
        agent = run(cluster, *flags, DONE=str(folder), FLOOD_MB="3")
        assert agent.wait() == 1
    report = agent.err.read_text().partition("Root cause: ")[2]
    assert f"exit code 1; no space is left on the disk at {disk.path.resolve()}, where it writes to" in report


def test_events_and_metrics_are_printed(cluster: ProcessCluster) -> None:
    flags = ["--event-log-handler", "console", "--metric-handler", "console", "--rdzv-id", "job7"]
    agent = run(cluster, *flags, "--no-python", "true")
    assert agent.wait() == 0
    lines = [line for line in agent.err.read_text().splitlines() if line.startswith("{")]
    states = [json.loads(line)["metadata"]["state"] for line in lines]
    assert states == ["RENDEZVOUS", "ASSIGN_WORKER_RANKS", "START", "SUCCEEDED", "SUCCEEDED"]
    assert {json.loads(line)["metadata"]["run_id"] for line in lines} == {"job7"}
    metrics = agent.out.read_text()
    assert re.search(
        r"^\[\d+\.\d+\]\[torchelastic\]: workers\.default\.run_success_no_retries=1$", metrics, re.MULTILINE
    )
    for name in ("SimpleElasticAgent.run", "LocalElasticAgent._start_workers", "LocalElasticAgent._monitor_workers"):
        assert f": {name}.success=1\n" in metrics


def test_ones_own_logs_are_plugged_in(cluster: ProcessCluster, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    write_entry_points(plugin, "torchrun.logs_specs", {"flat": "flat_logs:Flat"})
    (plugin / "flat_logs.py").write_text(
        "from rallypoint_agent import LogsDest, LogsSpecs\n"
        "class Flat(LogsSpecs):\n"
        "    root_log_dir = ''\n"
        "    def reify(self, envs):\n"
        "        return LogsDest(stdouts={rank: f'{self._root_log_dir}/{rank}' for rank in envs})\n"
    )
    flags = ["--logs-specs", "flat", "--log-dir", str(tmp_path), "--nproc-per-node", "2", "--no-python"]
    both = f"test -s {tmp_path}/0 && test -s {tmp_path}/1"
    script = f"echo ${{local_rank}}; until {both}; do sleep 0.01; done; exit 3"
    agent = run(cluster, *flags, "sh", "-c", script, PYTHONPATH=str(plugin))
    assert agent.wait() == 1, agent.output
    assert "exit code 3\n" in agent.output, "without error files it is told all the same"
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["0\n", "1\n"]


@pytest.mark.parametrize("flag", ["--logs-specs", "--event-log-handler", "--metric-handler"])
def test_what_is_not_plugged_in_is_a_usage_error(cluster: ProcessCluster, flag: str) -> None:
    agent = run(cluster, flag, "nobodys", "--no-python", "true")
    assert agent.wait() == 2
    assert agent.output.startswith(f"rallypoint run: {flag} nobodys: no entry point of ")
