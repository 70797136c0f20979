"""Events and metrics of an agent whose workers, coordinator and handlers the test plays."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rallypoint.model import AgentPhase, JobSpec, JobState, Observed, Outcome, WorkerFailure, WorkerState
from rallypoint_agent import events, metrics
from rallypoint_agent.api import RunResult, Worker, WorkerGroup, WorkerSpec
from rallypoint_agent.core.effects import Finish, FinishKind
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.events import Event, EventSource
from rallypoint_agent.file_timer_requests import TimerRequest
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.simple_elastic_agent import SimpleElasticAgent
from support.fake_link import FakeLink


def failed(rank: int, *, after_stop: bool = False) -> WorkerFailure:
    return WorkerFailure(
        node="a",
        local_rank=rank,
        rank=rank,
        pid=100 + rank,
        exit_code=1,
        message="ValueError: no",
        traceback="Traceback",
        fail_time_ms=1_700_000_000_999,
        after_stop=after_stop,
    )


class Failing(SimpleElasticAgent):
    """Two workers. One fails in each round up to ``failing``, after which all succeed."""

    def __init__(self, failing: int, decision: JobState = JobState.SUCCEEDED) -> None:
        def answer(link: FakeLink, observed: Observed) -> None:
            if observed.offer is None or observed.phase.may_have_workers:
                return
            number = observed.round + 1
            if number > failing or observed.phase is AgentPhase.SUCCEEDED:
                link.decide(decision)
            else:
                link.run_round(number, offer_id=observed.offer.offer_id, restart_count=number)

        self.failing = failing
        self.rounds = -1
        spec = WorkerSpec(
            "trainer",
            2,
            FakeLink(answer),
            entrypoint="/x/train.py",
            max_restarts=3,
            monitor_interval=0.01,
            local_addr="10.0.0.1",
            event_log_handler="noting",
        )
        config = AgentConfig(
            node="a",
            local_world_size=2,
            job_spec=JobSpec(max_restarts=3),
            connect_timeout_ms=60_000,
            start_ms=boot_ms(),
        )
        super().__init__(spec, config=config)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self.rounds += 1
        return {0: 100, 1: 101}

    def _stop_workers(self, worker_group: WorkerGroup, is_restart: bool = False) -> None:
        pass

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: float = 30) -> None:
        pass

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        if self.rounds < self.failing:
            return RunResult(WorkerState.FAILED, failures={1: failed(1)})
        return RunResult(WorkerState.SUCCEEDED)

    def _late_failures(self) -> tuple[WorkerFailure, ...]:
        return (failed(0, after_stop=True),)


class _Handler(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append(Event.deserialize(record.getMessage()))

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event.source.value, str(event.metadata["state"])) for event in self.events]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Handler]:
    handler = _Handler()
    monkeypatch.setattr(events, "_handlers", {"noting": handler})
    yield handler
    logging.getLogger("torchelastic-events-noting").handlers = []


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    values: list[tuple[str, float]] = []

    class Noting(metrics.MetricHandler):
        def emit(self, metric_data: metrics.MetricData) -> None:
            assert metric_data.group_name == "torchelastic"
            values.append((metric_data.name, metric_data.value))

    monkeypatch.setattr(metrics, "_default", [Noting()])
    return values


BEGINNING = [("AGENT", "RENDEZVOUS"), ("AGENT", "ASSIGN_WORKER_RANKS"), ("WORKER", "START"), ("WORKER", "START")]


def test_a_restart_and_a_success(heard: _Handler) -> None:
    agent = Failing(1)
    agent.run()
    agent.record_own_end()
    end = [("WORKER", "SUCCEEDED"), ("WORKER", "SUCCEEDED"), ("AGENT", "SUCCEEDED")]
    assert heard.told == [*BEGINNING, *BEGINNING, *end]
    assert [event.metadata["agent_restarts"] for event in heard.events] == [0] * 4 + [1] * 7


def test_a_failure_and_who_was_stopped_because_of_it(heard: _Handler) -> None:
    agent = Failing(2, JobState.FAILED)
    agent.failing = 99
    agent.run()
    agent.record_own_end()
    assert heard.told[-3:] == [("WORKER", "TERMINATED"), ("WORKER", "FAILED"), ("AGENT", "SUCCEEDED")]
    event = heard.events[-2]
    assert json.loads(str(event.metadata["raw_error"])) == {
        "message": {
            "message": "ValueError: no",
            "extraInfo": {"py_callstack": "Traceback", "timestamp": "1700000000"},
        }
    }


def test_an_event_has_torchs_fields_and_a_time(heard: _Handler) -> None:
    before_ms = time.time() * 1000 - 1
    agent = Failing(0)
    agent.run()
    event = heard.events[2]
    assert event.name == "torchelastic.worker.status.START"
    assert before_ms <= event.timestamp <= time.time() * 1000
    metadata = dict(event.metadata)
    assert metadata.pop("hostname") in (socket.gethostname(), socket.getfqdn())
    assert json.loads(str(metadata.pop("metadata"))) == {
        "group_world_size": 1,
        "entry_point": "train.py",
        "local_rank": 0,
        "role_rank": 0,
        "role_world_size": 2,
        "exit_code": None,
        "worker_pid": None,
    }
    assert metadata == {
        "run_id": "job7",
        "global_rank": 0,
        "group_rank": 0,
        "worker_id": "100",
        "role": "trainer",
        "state": "START",
        "total_run_time": 0,
        "rdzv_backend": "fake",
        "raw_error": None,
        "agent_restarts": 0,
        "duration_ms": None,
    }


def test_events_do_not_wait_for_the_full_name_of_this_host(heard: _Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "gethostname", lambda: "n1")
    monkeypatch.setattr(socket, "getfqdn", lambda: "n1.cluster.example" if answered.wait(60) else "")
    agent = Failing(0)
    agent.run()
    assert {event.metadata["hostname"] for event in heard.events} == {"n1"}
    answered.set()
    assert agent._hostname is not None
    agent._hostname.join(60)
    agent.record_own_end()
    assert heard.events[-1].metadata["hostname"] == "n1.cluster.example"


def test_the_agents_own_events_have_no_worker(heard: _Handler) -> None:
    Failing(0).run()
    metadata = heard.events[0].metadata
    assert (metadata["global_rank"], metadata["worker_id"], metadata["group_rank"]) == (None, None, 0)
    assert json.loads(str(metadata["metadata"])) == {"group_world_size": 1, "entry_point": "train.py"}
    duration = metadata["duration_ms"]
    assert isinstance(duration, float)
    assert duration >= 0


def test_a_subclass_may_time_what_it_does(heard: _Handler) -> None:
    agent = Failing(0)
    with contextlib.suppress(OSError), agent.record_duration("FETCH"):
        raise OSError
    (event,) = heard.events
    assert (event.name, event.source) == ("torchelastic.worker.status.FETCH", EventSource.AGENT)
    duration = event.metadata["duration_ms"]
    assert isinstance(duration, float)
    assert duration >= 0


def test_an_agent_that_had_no_part_in_it_has_no_workers_to_tell_of(
    heard: _Handler, values: list[tuple[str, float]]
) -> None:
    Failing(-1).run()
    assert heard.told == []
    assert not [name for name, _ in values if name.startswith("workers.")]


@pytest.mark.parametrize("kind", [FinishKind.UNREACHABLE, FinishKind.REFUSED, FinishKind.SIGNALLED])
def test_an_agent_that_could_not_do_its_part_failed(heard: _Handler, kind: FinishKind) -> None:
    agent = Failing(0)
    agent.finish = Finish(kind=kind, message="why")
    agent.record_own_end()
    assert heard.told == [("AGENT", "FAILED")]
    assert heard.events[0].metadata["raw_error"] == "why"


def test_an_agent_that_ends_by_an_error_tells_it(heard: _Handler) -> None:
    agent = Failing(0)
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        agent.record_own_end()
    assert heard.told == [("AGENT", "FAILED")]
    assert "RuntimeError: a bug" in str(heard.events[0].metadata["raw_error"])


def test_the_metrics_of_a_restart_and_a_success(values: list[tuple[str, float]], heard: _Handler) -> None:
    Failing(1).run()
    by_name = dict(values)
    durations = {name: by_name.pop(name) for name in list(by_name) if name.endswith(".duration.ms")}
    assert by_name == {
        "SimpleElasticAgent._rendezvous.success": 1,
        "SimpleElasticAgent._assign_worker_ranks.success": 1,
        "SimpleElasticAgent._initialize_workers.success": 1,
        "SimpleElasticAgent._restart_workers.success": 1,
        "SimpleElasticAgent.run.success": 1,
        "workers.trainer.remaining_restarts": 2,
        "workers.trainer.failed": 1,
        "workers.trainer.succeeded": 1,
        "workers.trainer.flakiness": 25,
        "workers.trainer.run_total": 1,
        "workers.trainer.run_success_with_retries": 1,
        "workers.trainer.run_success_no_retries": 0,
        "workers.trainer.run_failed_with_retries": 0,
        "workers.trainer.run_failed_no_retries": 0,
    }
    assert len(durations) == 5
    assert all(duration >= 0 for duration in durations.values())
    names = [name for name, _ in values]
    assert names.count("SimpleElasticAgent._initialize_workers.success") == 2
    assert names.count("SimpleElasticAgent._restart_workers.success") == 1


def test_a_failed_job_is_all_flaky(values: list[tuple[str, float]], heard: _Handler) -> None:
    agent = Failing(0, JobState.FAILED)
    agent.failing = 99
    agent.run()
    by_name = dict(values)
    assert by_name["workers.trainer.flakiness"] == 100
    assert by_name["workers.trainer.run_failed_no_retries"] == 1
    assert by_name["workers.trainer.run_failed_with_retries"] == 0


def test_a_worker_of_unknown_end_is_an_error(heard: _Handler) -> None:
    with pytest.raises(ValueError, match="Unknown worker: 5"):
        Failing(0)._get_worker_state(Worker(0, global_rank=5), RunResult(WorkerState.SUCCEEDED))


def test_an_outcome_is_the_agents_success_whatever_it_is(heard: _Handler) -> None:
    agent = Failing(0)
    outcome = Outcome(state=JobState.FAILED, reason="R", message="why")
    agent.finish = Finish(kind=FinishKind.DECIDED, message="why", outcome=outcome)
    agent.record_own_end()
    assert heard.told == [("AGENT", "SUCCEEDED")]


def test_a_flood_of_timers_that_kill_nobody_is_a_few_lines_and_no_failure_is_lost(
    heard: _Handler, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Failing(0)

    def expire(scope: str, number: int) -> None:
        agent._log_watchdog_event("timer expired", TimerRequest(7, scope, 1.0, number))

    for _ in range(500):
        expire("harmless 100%", 0)
    for rank in range(50):
        expire(f"hangs {rank}", signal.SIGKILL)
    told = [record.getMessage() for record in caplog.records]
    assert sum("harmless 100%" in line for line in told) == 20
    assert [line for line in told if "hangs" in line] == [line for line in told if "signal='9'" in line]
    assert sum("hangs" in line for line in told) == 50
    caplog.clear()
    agent._log_watchdog_event("watchdog stopped", None)
    assert caplog.messages == ["480 more timers that kill nobody have expired"]
    assert len(heard.events) == 551, "for machines each is an event"
