"""What the rounds of one agent have in common: each ends as told, and leaves nothing."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rallypoint.model import AgentPhase, JobSpec, JobState, Observed, Stop
from rallypoint.validation import LEASE_TTL_MS_MAX
from rallypoint_agent.api import WorkerSpec
from rallypoint_agent.core.state import AgentConfig
from rallypoint_agent.keeper import Keeper
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.local_elastic_agent import LocalElasticAgent
from rallypoint_agent.logs import DefaultLogsSpecs, LogsDest, Std
from support.fake_link import Answer, FakeLink
from support.processes import MARK_VARIABLE, new_mark, pids_with_mark, wait_until

ROUNDS = 200
WARM_UP = 20
WORKERS = 8


@pytest.fixture
def mark() -> Iterator[str]:
    mark = new_mark()
    yield mark
    assert not pids_with_mark(mark)


def agent_of(
    link: FakeLink, mark: str, workers: int, script: str, *, shutdown_timeout_ms: int = 30_000, **more: Any
) -> LocalElasticAgent:
    spec = WorkerSpec("default", workers, link, entrypoint="sh", args=("-c", script), local_addr="127.0.0.1")
    job_spec = JobSpec(max_nodes=1, shutdown_timeout_ms=shutdown_timeout_ms)
    config = AgentConfig(
        node="a", local_world_size=workers, job_spec=job_spec, connect_timeout_ms=60_000, start_ms=boot_ms()
    )
    environ = {**os.environ, MARK_VARIABLE: mark}
    logs = more.pop("logs_specs", DefaultLogsSpecs())
    timeout = shutdown_timeout_ms / 1000
    return LocalElasticAgent(spec, logs, environ=environ, config=config, shutdown_timeout=timeout, **more)


def one_round(while_running: Callable[[FakeLink], None] = lambda link: None) -> Answer:
    def answer(link: FakeLink, observed: Observed) -> None:
        if observed.phase is AgentPhase.RUNNING and all(worker.pid for worker in observed.workers):
            while_running(link)
        elif observed.offer is not None and observed.round < 0:
            link.run_round(0, offer_id=observed.offer.offer_id, world_size=WORKERS)
        elif observed.round >= 0 and not observed.phase.may_have_workers:
            link.decide(JobState.FAILED)

    return answer


# --- half a start


class ThirdIsMissing(DefaultLogsSpecs):
    """The third worker's output cannot be opened."""

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        return LogsDest(stdouts={2: "/no/such/folder/out"}, error_files=dict.fromkeys(envs, ""))


def test_of_a_start_that_fails_half_way_nothing_is_left(mark: str) -> None:
    left: list[set[int]] = []
    answer = one_round()

    def look(link: FakeLink, observed: Observed) -> None:
        if observed.phase is AgentPhase.FAILED:
            left.append(pids_with_mark(mark) - {os.getpid()})
        answer(link, observed)

    agent = agent_of(FakeLink(look), mark, WORKERS, "sleep 600 & setsid sleep 600 & wait", logs_specs=ThirdIsMissing())
    (failure,) = agent.run().failures.values()
    assert (failure.local_rank, failure.exit_code) == (2, 127)
    assert failure.message == "cannot open '/no/such/folder/out': No such file or directory"
    assert left
    assert not any(left), "before the failure was told all were gone"


# --- the grace period

STUBBORN = "trap '' TERM USR1; echo ready >> $NOTES; [ $LOCAL_RANK = $FAILS ] && exit 3; while :; do sleep 1000; done"
GRACE_MS = 300


def stop(link: FakeLink) -> None:
    link.direct(Stop(0, GRACE_MS))


def signal_us(link: FakeLink) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def break_the_agent(link: FakeLink) -> None:
    raise LookupError("an error of its own")


@pytest.mark.parametrize(
    ("fails", "while_running", "number"),
    [
        (0, lambda link: None, signal.SIGTERM),
        (-1, stop, signal.SIGTERM),
        (-1, signal_us, signal.SIGUSR1),
        (-1, break_the_agent, signal.SIGTERM),
    ],
    ids=["a worker failed", "the coordinator says stop", "a signal", "an error of the agent"],
)
def test_the_shutdown_timeout_holds_however_the_workers_end(
    mark: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: int,
    while_running: Callable[[FakeLink], None],
    number: signal.Signals,
) -> None:
    stops: list[tuple[int, float]] = []
    original = Keeper.stop

    def noting(keeper: Keeper, *, death_signal: int, grace: float) -> None:
        stops.append((death_signal, grace))
        original(keeper, death_signal=death_signal, grace=grace)

    monkeypatch.setattr(Keeper, "stop", noting)
    monkeypatch.setenv("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGUSR1")
    monkeypatch.setenv("NOTES", str(notes := tmp_path / "notes"))
    monkeypatch.setenv("FAILS", str(fails))

    def once_they_are_stubborn(link: FakeLink) -> None:
        wait_until(lambda: notes.exists() and notes.read_text() == "ready\n" * 2)
        while_running(link)

    agent = agent_of(FakeLink(one_round(once_they_are_stubborn)), mark, 2, STUBBORN, shutdown_timeout_ms=GRACE_MS)
    try:
        agent.run()
    except LookupError:
        assert while_running is break_the_agent
    assert stops[0] == (number, GRACE_MS / 1000)


# --- many rounds


class Usage:
    """What this process and its keeper have in use."""

    def __init__(self, agent: LocalElasticAgent, strangers: set[int]) -> None:
        """``strangers``: children that were there before, which other tests have left to this process."""
        assert agent._post.keeper is not None
        processes = [psutil.Process(), psutil.Process(agent._post.keeper.pid)]
        self.fds = [process.num_fds() for process in processes]
        self.threads = [process.num_threads() for process in processes]
        self.memory = [process.memory_info().rss for process in processes]
        self.children = child_pids() - strangers
        self.files = sorted(path.name for path in Path(tempfile.gettempdir()).iterdir())


def child_pids() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def all_is_shown(agent: LocalElasticAgent) -> bool:
    """Of the rounds that have ended: no file of theirs is open, and none will be opened any more."""
    return not agent._output._tails._tails


@pytest.mark.timeout(600)  # 1,760 processes are many for a machine that is busy with other tests.
def test_two_hundred_restarts_leak_nothing(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch, logs = tmp_path / "tmp", tmp_path / "logs"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    usages: dict[int, Usage] = {}
    strangers = child_pids()

    def answer(link: FakeLink, observed: Observed) -> None:
        if observed.phase.may_have_workers or observed.offer is None:
            return
        number = observed.round + 1
        if number in (WARM_UP, WARM_UP + ROUNDS):
            wait_until(lambda: all_is_shown(agent), message="the logs of the last round are being shown")
            usages[number] = Usage(agent, strangers)
        del link.reports[:-1]  # The test's own notes are no leak of the agent's.
        if number < WARM_UP + ROUNDS:
            link.run_round(number, offer_id=observed.offer.offer_id, restart_count=number, world_size=WORKERS)
        else:
            link.decide(JobState.FAILED)

    specs = DefaultLogsSpecs(str(logs), tee=Std.ALL)
    link = FakeLink(answer, spec=JobSpec(lease_ttl_ms=LEASE_TTL_MS_MAX))  # Nobody renews it.
    agent = agent_of(link, mark, WORKERS, "exit 1", logs_specs=specs)
    agent.run()
    first, last = usages[WARM_UP], usages[WARM_UP + ROUNDS]
    assert (last.fds, last.threads, last.children) == (first.fds, first.threads, first.children)
    assert last.files == first.files
    assert len(last.children) == 1, "the keeper alone"
    for before, after in zip(first.memory, last.memory, strict=True):
        assert after <= before * 1.05, f"{before} -> {after} bytes"
    assert list(scratch.iterdir()) == []
