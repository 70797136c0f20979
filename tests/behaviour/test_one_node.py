"""Launching from Python on one node: entrypoints, what comes back, failures, restarts, events and metrics."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from behaviour import tasks
from rallypoint_agent import (
    ChildFailedError,
    DefaultLogsSpecs,
    LaunchConfig,
    LaunchError,
    Std,
    elastic_launch,
    launch_agent,
    metrics,
)
from rallypoint_agent.core.effects import FinishKind
from rallypoint_agent.health_check_server import HealthCheckServer
from support.entry_points import plug_in


def config(workers: int = 1, **more: Any) -> LaunchConfig:
    return LaunchConfig(1, 1, workers, **{"max_restarts": 0, **more})


def failed(*launch: Any) -> ChildFailedError:
    with pytest.raises(ChildFailedError) as raised:
        launch_agent(*launch)
    return raised.value


# --- entrypoints


def test_a_function_returns_by_global_rank() -> None:
    returned = elastic_launch(config(3), tasks.multiplied)("${local_rank}", 10)
    assert returned == {0: (0, 0), 1: (1, 10), 2: (2, 20)}


@pytest.mark.parametrize(
    ("program", "args"),
    [
        pytest.param("sh", ["-c", 'echo "$0 $RANK"', "said"], id="binary"),
        pytest.param(sys.executable, ["-u", "SCRIPT", "said"], id="script"),
        pytest.param(sys.executable, ["-u", "-m", "module", "said"], id="module"),
    ],
)
def test_a_programs_workers_return_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, args: list[str]
) -> None:
    script = tmp_path / "module.py"
    script.write_text("import os, sys; print(sys.argv[1], os.environ['RANK'])")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    logs = DefaultLogsSpecs(str(tmp_path / "logs"), redirects=Std.ALL)
    argv = [str(script) if arg == "SCRIPT" else arg for arg in args]
    assert launch_agent(config(2, logs_specs=logs), program, argv) == {0: None, 1: None}
    said = sorted(path.read_text() for path in (tmp_path / "logs").rglob("stdout.log"))
    assert said == ["said 0\n", "said 1\n"]


def test_workers_are_told_of_the_signals_but_not_the_program_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGHUP")
    asked = "TORCHELASTIC_SIGNALS_TO_HANDLE"
    assert launch_agent(config(signals_to_handle="SIGTERM, SIGUSR1"), os.getenv, [asked]) == {0: "SIGTERM,SIGUSR1"}
    assert launch_agent(config(), os.getenv, [asked]) == {0: "SIGTERM,SIGINT,SIGHUP,SIGQUIT"}
    assert os.environ[asked] == "SIGHUP"


# --- failures


@pytest.mark.parametrize("ranks", [[1], [0, 2], [0, 1, 2]], ids=["one", "some", "all"])
def test_failures_are_by_global_rank(tmp_path: Path, ranks: list[int]) -> None:
    logs = DefaultLogsSpecs(str(tmp_path / "logs"))
    error = failed(config(3, logs_specs=logs), tasks.fail_on, [ranks, str(tmp_path)])
    first, failure = error.get_first_failure()
    assert first in ranks
    assert failure.exitcode == 1
    assert failure.message.startswith(f"RuntimeError: rank {first} has had enough")
    assert json.loads(Path(failure.error_file).read_text())["message"]["message"] == failure.failure.message
    # Whoever waited was told to end by SIGTERM, which is no words of its own.
    own = {rank for rank, failure in error.failures.items() if failure.message.startswith("RuntimeError")}
    assert first in own <= set(ranks)
    assert "fail_on FAILED" in str(error)
    assert "has had enough" in str(error).partition("Root Cause (first observed failure):")[2]


def test_a_worker_that_a_signal_ended() -> None:
    error = failed(config(), tasks.die_of, [int(signal.SIGKILL)])
    failure = error.failures[0]
    assert (failure.exitcode, failure.signal_name()) == (-9, "SIGKILL")
    assert failure.message == f"Signal 9 (SIGKILL) received by PID {failure.pid}"


def test_a_program_that_does_not_exist() -> None:
    error = failed(config(), "./no-such-program", [])
    assert error.name == "./no-such-program"
    assert "no-such-program" in error.failures[0].message


# --- restarts


def test_what_the_last_round_returned_counts(tmp_path: Path) -> None:
    returned = launch_agent(config(2, max_restarts=3), tasks.fail_until, [2, str(tmp_path)])
    assert returned == {0: 2, 1: 2}
    assert {path.name for path in tmp_path.glob("*-of-0")} == {f"try-{number}-of-0" for number in range(3)}


def test_when_the_restarts_are_spent_the_job_fails(tmp_path: Path) -> None:
    error = failed(config(max_restarts=2), tasks.fail_until, [9, str(tmp_path)])
    assert error.failures[0].exitcode == 7
    assert len(list(tmp_path.glob("try-*"))) == 3


# --- what else is given, and what else goes wrong


def test_no_coordinator_is_no_failure_of_a_worker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        free = bound.getsockname()[1]
    alone = config(rdzv_endpoint=f"127.0.0.1:{free}", rdzv_configs={"connect_timeout": "300ms"})
    with pytest.raises(LaunchError, match=str(free)) as raised:
        launch_agent(alone, tasks.rank, [])
    assert raised.value.kind is FinishKind.UNREACHABLE


def test_the_health_check_server_that_was_given_is_used() -> None:
    calls: list[str] = []

    class Health(HealthCheckServer):
        def start(self) -> None:
            calls.append("start")

        def stop(self) -> None:
            calls.append("stop")

    elastic_launch(config(), tasks.rank, Health(lambda: 0, 0))()
    assert calls == ["start", "stop"]


def test_nothing_of_a_launch_stays() -> None:
    def open_fds() -> set[str]:
        return set(os.listdir("/proc/self/fd"))

    launch_agent(config(), tasks.rank, [])
    before = open_fds(), signal.getsignal(signal.SIGTERM)
    launch_agent(config(), tasks.rank, [])
    assert (open_fds(), signal.getsignal(signal.SIGTERM)) == before


# --- events and metrics

events: list[dict[str, Any]] = []


class Noting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        events.append(json.loads(record.getMessage()))


class Metrics(metrics.MetricHandler):
    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def emit(self, metric_data: metrics.MetricData) -> None:
        self.values[metric_data.name] = metric_data.value


@pytest.fixture
def noted_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    plug_in(tmp_path / "plugged", monkeypatch, "rallypoint.event_handlers", {"behaviour": f"{__name__}:Noting"})
    events.clear()
    return events


@pytest.fixture
def noted_metrics() -> Any:
    handler = Metrics()
    metrics.configure(handler)
    yield handler.values
    metrics.configure(metrics.NullMetricHandler())


def states(noted: list[dict[str, Any]], source: str) -> list[str]:
    return [event["metadata"]["state"] for event in noted if event["source"] == source]


def test_events_of_a_restart(tmp_path: Path, noted_events: list[dict[str, Any]]) -> None:
    launch_agent(config(2, max_restarts=1, event_log_handler="behaviour"), tasks.fail_until, [1, str(tmp_path)])
    assert states(noted_events, "WORKER") == ["START", "START", "START", "START", "SUCCEEDED", "SUCCEEDED"]
    assert states(noted_events, "AGENT") == ["RENDEZVOUS", "ASSIGN_WORKER_RANKS"] * 2 + ["SUCCEEDED"]
    assert noted_events[-1]["metadata"]["agent_restarts"] == 1


def test_events_of_a_failure(tmp_path: Path, noted_events: list[dict[str, Any]]) -> None:
    failed(config(2, event_log_handler="behaviour"), tasks.fail_on, [[1], str(tmp_path)])
    assert states(noted_events, "WORKER") == ["START", "START", "TERMINATED", "FAILED"]
    # The agent did its part, as torch has it.
    assert states(noted_events, "AGENT")[-1] == "SUCCEEDED"


def test_metrics_of_a_restart(tmp_path: Path, noted_metrics: dict[str, float]) -> None:
    launch_agent(config(max_restarts=1), tasks.fail_until, [1, str(tmp_path)])
    told = {name.removeprefix("workers.default_role."): value for name, value in noted_metrics.items()}
    assert (told["run_total"], told["run_success_with_retries"], told["run_failed_with_retries"]) == (1, 1, 0)
    assert told["remaining_restarts"] == 0
    assert told["flakiness"] == 50
    assert noted_metrics["SimpleElasticAgent.run.success"] == 1


def test_metrics_of_a_failure(noted_metrics: dict[str, float]) -> None:
    failed(config(), "false", [])
    told = {name.removeprefix("workers.default_role."): value for name, value in noted_metrics.items()}
    assert (told["run_total"], told["run_failed_no_retries"], told["flakiness"]) == (1, 1, 100)
