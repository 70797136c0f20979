"""The commands as processes, through the installed ``rallypoint``: a job's life, and what ends a command early."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from rallypoint.commands import exits
from rallypoint.commands.restarts import PHASES
from rallypoint.v1 import types_pb2
from support.cluster import ProcessCluster

RALLYPOINT = str(Path(sys.executable).with_name("rallypoint"))
TIMEOUT_S = 60.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        cluster.coordinator()
        yield cluster


def rallypoint(cluster: ProcessCluster, *argv: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "RALLYPOINT_COORDINATOR": cluster.address}
    return subprocess.run(
        (RALLYPOINT, *argv), env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def test_a_job_is_seen_restarted_drained_and_cancelled(cluster: ProcessCluster) -> None:
    argv = ("--rdzv-id", "job", "--nnodes", "1:2", "--nproc-per-node", "2", "--last-call-timeout", "0")
    a = cluster.agent("node-a", *argv, cluster.worker("wait.py"))
    cluster.wait_for_round("job", 0)
    status = rallypoint(cluster, "status", "job")
    assert (status.returncode, status.stderr) == (exits.OK, "")
    assert "state         RUNNING for " in status.stdout
    assert status.stdout.splitlines()[-1].split()[:4] == ["node-a", "PARTICIPANT", "0-1", "RUNNING"]
    assert json.loads(rallypoint(cluster, "nodes", "job", "-o", "json").stdout)["nodes"][0]["attached"] is True

    assert rallypoint(cluster, "restart", "job", "--reason", "a test").returncode == exits.OK
    cluster.wait_for_round("job", 1)
    b = cluster.agent("node-b", *argv, cluster.worker("wait.py"))
    cluster.wait_for_round("job", 2)
    added_up(cluster, "RESTART_ASKED", "NODE_JOINED")
    assert rallypoint(cluster, "drain", "job", "node-b").returncode == exits.OK
    assert b.wait() == 0
    cluster.wait_for_round("job", 3)
    assert rallypoint(cluster, "cancel", "job", "--reason", "enough").returncode == exits.OK
    assert a.wait() == 1
    cluster.wait_for_state("job", types_pb2.JOB_STATE_CANCELLED)
    line = rallypoint(cluster, "jobs").stdout.splitlines()[-1]
    assert line.split()[:2] == ["job", "CANCELLED"]
    assert line.endswith("cancelled by 127.0.0.1: enough")


def test_what_a_failure_took_is_told_phase_by_phase(cluster: ProcessCluster) -> None:
    argv = ("--rdzv-id", "job", "--nnodes", "2", "--max-restarts", "1", "--last-call-timeout", "0")
    for node in ("node-a", "node-b"):
        cluster.agent(node, *argv, cluster.worker("wait.py"))
    workers = cluster.wait_for_round("job", 0)
    os.kill(workers[1].pid, signal.SIGKILL)
    cluster.wait_for_round("job", 1)
    added_up(cluster, "WORKER_FAILED")
    status = rallypoint(cluster, "status", "job").stdout
    assert re.search(r"^last round    round 0 ended \S+ ago: restart 1 of 1: rank 1 on ", status, re.MULTILINE)
    (coordinator,) = (process for process in cluster.processes if process.name == "coordinator")
    assert "WORKERS_RUN: round 1 runs: 2 workers on 2 nodes" in coordinator.output


def added_up(cluster: ProcessCluster, *causes: str) -> None:
    """How the rounds so far ended: each phase is known, and all of them follow one another."""
    changes = json.loads(rallypoint(cluster, "status", "job", "-o", "json").stdout)["round_changes"]
    assert [change["cause"] for change in changes] == list(causes)
    for number, change in enumerate(changes):
        assert (int(change["round"]), int(change["next_round"])) == (number, number + 1)
        took_s = [float(change[phase].removesuffix("s")) for phase in PHASES]
        assert min(took_s) >= 0
        began, ended = (datetime.fromisoformat(change[name]) for name in ("begin_time", "end_time"))
        assert (ended - began).total_seconds() == pytest.approx(sum(took_s[:3]))
    lines = rallypoint(cluster, "status", "job").stdout.splitlines()
    header = next(number for number, line in enumerate(lines) if line.split()[2:7] == list(map(str.upper, PHASES)))
    rows = lines[header + 1 : header + 1 + len(causes)]
    assert [line.split()[8] for line in rows] == [f"{cause}:" for cause in causes]


def start(*argv: str, stdout: int) -> subprocess.Popen[str]:
    return subprocess.Popen((RALLYPOINT, *argv), stdout=stdout, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, err


def test_a_closed_pipe_ends_it_quietly(cluster: ProcessCluster) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = start("jobs", "--coordinator", cluster.address, stdout=write_end)
    os.close(write_end)
    assert end(process) == (exits.NOBODY_READS, "")


def test_a_full_disk_is_said_on_one_line(cluster: ProcessCluster) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    process = start("jobs", "--coordinator", cluster.address, stdout=full)
    os.close(full)
    said = "rallypoint jobs: standard output cannot be written: No space left on device\n"
    assert end(process) == (exits.REFUSED, said)


def test_ctrl_c_ends_it_quietly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = start("jobs", "--coordinator", address, "--timeout", "10m", stdout=subprocess.DEVNULL)
        silent.settimeout(TIMEOUT_S)
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        assert end(process) == (130, "")
        connection.close()
