"""The watchdog with real agents: what hangs inside a timer is killed, and the job goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Process, ProcessCluster
from support.processes import wait_until

ON = {"TORCHELASTIC_ENABLE_FILE_TIMER": "1"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster


def run(cluster: ProcessCluster, *argv: str, **env: str) -> Process:
    return cluster.start(
        "agent", "run", "--standalone", "--node-name", "node-a", *argv, TMPDIR=str(cluster.folder), **{**ON, **env}
    )


def pipes(cluster: ProcessCluster) -> list[Path]:
    return [path for path in cluster.folder.iterdir() if path.name.startswith("watchdog_timer_")]


def test_a_worker_that_hangs_is_killed_and_the_job_restarts(cluster: ProcessCluster) -> None:
    flags = ("--nproc-per-node", "2", "--max-restarts", "1")
    agent = run(cluster, *flags, cluster.worker("hang.py"), HANG="1")
    assert agent.wait() == 0, agent.output
    assert "rank 1 is to be killed: its timer expired, scope the step that hangs" in agent.output
    assert "round 1: ranks 0-1 of 2, restart 1 of 1" in agent.output
    assert "kill worker process: worker_pid='" in agent.output
    assert "rank 0 is to be killed" not in agent.output
    assert "no worker of ours" not in agent.output
    assert not pipes(cluster)


def test_the_failure_names_the_scope(cluster: ProcessCluster) -> None:
    agent = run(cluster, "--max-restarts", "0", cluster.worker("hang.py"))
    assert agent.wait() == 1
    assert "Root cause: rank 0" in agent.output
    assert "SIGKILL; its timer expired, scope the step that hangs" in agent.output


def test_torchs_events_are_recorded(cluster: ProcessCluster) -> None:
    agent = run(cluster, "--max-restarts", "0", "--event-log-handler", "console", cluster.worker("hang.py"))
    assert agent.wait() == 1
    for name in ("watchdog started", "timer expired", "kill worker process", "watchdog stopped"):
        assert f'"name": "{name}"' in agent.output


def test_a_worker_behind_a_wrapper_is_guarded_too(cluster: ProcessCluster) -> None:
    command = f"{sys.executable} {cluster.worker('hang.py')}; exit $?"
    agent = run(cluster, "--no-python", "--max-restarts", "1", "sh", "-c", command)
    assert agent.wait() == 0, agent.output
    assert "scope the step that hangs" in agent.output


def test_whom_sigterm_does_not_end_sigkill_does(cluster: ProcessCluster) -> None:
    flags = ("--max-restarts", "1", "--shutdown-timeout", "1")
    agent = run(cluster, *flags, cluster.worker("timers.py"), "deaf")
    assert agent.wait() == 0, agent.output
    assert agent.output.count("timer expired: ") == 2
    assert "restart 1 of 1" in agent.output


def test_to_end_with_0_because_of_the_watchdog_is_no_success(cluster: ProcessCluster) -> None:
    agent = run(cluster, "--max-restarts", "0", cluster.worker("timers.py"), "polite")
    assert agent.wait() == 1, agent.output
    assert "SIGTERM; its timer expired, scope polite" in agent.output


def test_what_is_written_in_bad_faith_hurts_nobody(cluster: ProcessCluster) -> None:
    bystander = os.getpid()
    agent = run(cluster, "--max-restarts", "0", cluster.worker("timers.py"), "evil", AGENT_PID_FOR_TEST=str(bystander))
    assert agent.wait() == 0, agent.output
    assert "timer expired" not in agent.output
    assert "the watchdog" in agent.output


def test_without_the_variable_there_is_none(cluster: ProcessCluster) -> None:
    command = 'import os; assert "TORCHELASTIC_TIMER_FILE" not in os.environ'
    agent = run(cluster, "--no-python", sys.executable, "-c", command, TORCHELASTIC_ENABLE_FILE_TIMER="0")
    assert agent.wait() == 0, agent.output
    assert "watchdog" not in agent.output


def test_the_pipe_is_where_it_is_asked_for(cluster: ProcessCluster) -> None:
    path = cluster.folder / "timers"
    agent = run(cluster, cluster.worker("timers.py"), "evil", TORCHELASTIC_TIMER_FILE=str(path), AGENT_PID_FOR_TEST="1")
    assert agent.wait() == 0, agent.output
    assert not path.exists()


def test_a_path_that_is_taken_ends_the_agent_with_a_word(cluster: ProcessCluster) -> None:
    path = cluster.folder / "timers"
    path.write_text("precious")
    agent = run(cluster, cluster.worker("hang.py"), TORCHELASTIC_TIMER_FILE=str(path))
    assert agent.wait() == 1
    assert f"(TORCHELASTIC_TIMER_FILE): {path}: something else than a watchdog's pipe is there" in agent.output
    assert "Traceback" not in agent.output
    assert path.read_text() == "precious"


def test_the_coordinator_shows_the_watchdog(cluster: ProcessCluster, tmp_path: Path) -> None:
    cluster.coordinator()
    release = tmp_path / "release"
    agent = cluster.agent(
        "node-a",
        "--rdzv-id",
        "job",
        "--lease-ttl",
        "8",
        cluster.worker("timers.py"),
        "hold",
        RELEASE=str(release),
        **ON,
    )
    agent.wait_for("round 0: ")
    wait_until(lambda: [worker.watchdog.live_timers for worker in cluster.workers("job")] == [1])
    (worker,) = cluster.workers("job")
    first = worker.watchdog.progress_time
    assert worker.watchdog.enabled
    assert cluster.nodes("job")["node-a"].watchdog.live_timers == 1
    # Heartbeats carry it, though nothing else is new.
    wait_until(lambda: cluster.workers("job")[0].watchdog.progress_time.ToNanoseconds() > first.ToNanoseconds())
    release.touch()
    assert agent.wait() == 0, agent.output


def test_the_last_expiry_is_shown(cluster: ProcessCluster) -> None:
    cluster.coordinator()
    agent = cluster.agent("node-a", "--rdzv-id", "job", "--max-restarts", "0", cluster.worker("hang.py"), **ON)
    assert agent.wait() == 1
    job = cluster.job("job")
    assert job.outcome.culprit.message == "SIGKILL; its timer expired, scope the step that hangs"
