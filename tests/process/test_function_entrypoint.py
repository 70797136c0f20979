"""Functions as entrypoints: called in processes of their own, their return values brought back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rallypoint.model import AgentPhase, JobState, Observed, WorkerState
from rallypoint_agent.api import RunResult, WorkerSpec
from rallypoint_agent.local_elastic_agent import LocalElasticAgent
from rallypoint_agent.logs import DefaultLogsSpecs, Std
from support.fake_link import FakeLink


def ranks(local_rank: str, offset: int) -> tuple[str, int, str]:
    return local_rank, int(os.environ["RANK"]) + offset, os.environ["WORLD_SIZE"]


def raises(text: str) -> None:
    raise LookupError(text)


def exits(code: int | None) -> str:
    sys.exit(code)


def ends_its_process() -> str:
    os._exit(0)


class OnlyWorkersReadIt:
    """Pickled by a worker, and of no use to the agent."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_readable_where, (os.getpid(),))


def _readable_where(pid: int) -> str:
    if pid != os.getpid():
        raise LookupError("not here")
    return "here"


def returns_what_only_workers_read() -> OnlyWorkersReadIt:
    return OnlyWorkersReadIt()


class EndsWhoReadsIt:
    def __reduce__(self) -> tuple[Any, ...]:
        return (sys.exit, (7,))


def returns_what_ends_its_reader() -> EndsWhoReadsIt:
    return EndsWhoReadsIt()


def returns_a_lambda() -> object:
    return lambda: None


def one_round(link: FakeLink, observed: Observed) -> None:
    """A coordinator of one round of two workers: its end is the job's."""
    if observed.phase is AgentPhase.READY and observed.offer and observed.round < 0:
        link.run_round(0, offer_id=observed.offer.offer_id, world_size=2)
    elif observed.phase is AgentPhase.SUCCEEDED:
        link.decide(JobState.SUCCEEDED)
    elif not observed.phase.may_have_workers:
        link.decide(JobState.FAILED)


def run(function: Any, *args: object, size: int = 2, log_dir: Path | None = None, **more: Any) -> RunResult:
    link = FakeLink(one_round)
    spec = WorkerSpec("default", size, link, entrypoint=function, args=args, local_addr="127.0.0.1")
    agent = LocalElasticAgent(spec, DefaultLogsSpecs(str(log_dir) if log_dir else None), **more)
    return agent.run()


def only_failure(result: RunResult) -> Any:
    assert result.state is WorkerState.FAILED
    return min(result.failures.values(), key=lambda failure: failure.fail_time_ms)


def test_return_values_are_by_global_rank() -> None:
    result = run(ranks, "${local_rank}", 10)
    assert result.state is WorkerState.SUCCEEDED
    assert result.return_values == {0: ("0", 10, "2"), 1: ("1", 11, "2")}


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_it_is_called_in_a_process_of_its_own(start_method: str) -> None:
    result = run(os.getpid, start_method=start_method)
    assert len({os.getpid(), *result.return_values.values()}) == 3


def test_an_exception_is_the_failure(tmp_path: Path) -> None:
    failure = only_failure(run(raises, "it was not there", log_dir=tmp_path))
    assert failure.exit_code == 1
    assert failure.message.startswith("LookupError: it was not there")
    assert "in raises" in failure.traceback


@pytest.mark.parametrize("code", [0, None])
def test_an_exit_with_0_returns_nothing(code: int | None) -> None:
    assert run(exits, code, size=1).return_values == {0: None}


def test_an_exit_with_something_else_fails() -> None:
    assert only_failure(run(exits, 7, size=1)).exit_code == 7


def test_a_process_that_ends_itself_returns_nothing() -> None:
    assert run(ends_its_process, size=1).return_values == {0: None}


def test_a_value_that_cannot_be_pickled_fails_the_worker(tmp_path: Path) -> None:
    assert "pickle" in only_failure(run(returns_a_lambda, size=1, log_dir=tmp_path)).message


def test_a_value_that_the_agent_cannot_read_is_no_success() -> None:
    failure = only_failure(run(returns_what_only_workers_read, size=1))
    assert failure.message == "the return value cannot be read by the agent: LookupError: not here"


def test_a_value_that_would_end_the_agent_is_no_success() -> None:
    failure = only_failure(run(returns_what_ends_its_reader, size=1))
    assert failure.message == "the return value cannot be read by the agent: SystemExit: 7"


def test_a_function_that_no_other_process_finds_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="defined at the top of a module"):
        run(lambda: None)


def from_stdin(program: str) -> subprocess.CompletedProcess[str]:
    head = "import os\nfrom rallypoint_agent import LaunchConfig, elastic_launch\n"
    launch = "elastic_launch(LaunchConfig(1, 1, nproc_per_node=2, max_restarts=3), function)"
    program = f"{head}{program}\nprint({launch}())\n"
    return subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("program", ["def function(): pass", "class function: pass"], ids=["function", "class"])
def test_a_function_that_is_in_no_file_is_refused_at_once(program: str) -> None:
    ended = from_stdin(program)
    assert ended.returncode == 1
    assert "in a program that is in no file" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("ValueError: the function function cannot be called by a worker")


def test_a_program_that_is_in_no_file_may_launch_a_module_s_function() -> None:
    ended = from_stdin("function = os.getpid")
    assert ended.stdout.startswith("{0: "), ended.stderr


class Unpicklable:
    def __reduce__(self) -> Any:
        raise LookupError("it is not to be copied")


@pytest.mark.parametrize("argument", [lambda: None, Unpicklable()], ids=["lambda", "error"])
def test_arguments_that_cannot_be_pickled_are_refused_at_once(argument: object) -> None:
    with pytest.raises(ValueError, match="arguments that can be pickled"):
        run(raises, argument)


def test_fork_is_refused_for_a_function() -> None:
    with pytest.raises(ValueError, match="'fork' cannot be used"):
        run(raises, start_method="fork")


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run(ranks, "${local_rank}", 0)
    assert not list(tmp_path.glob("rallypoint-function-*"))


def fails_first(rounds: int) -> int:
    if (number := int(os.environ["RALLYPOINT_ROUND"])) < rounds:
        raise LookupError("not yet")
    return number


def test_what_rounds_were_given_does_not_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch, logs = tmp_path / "tmp", tmp_path / "logs"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    rounds = 4
    left: list[list[str]] = []

    def answer(link: FakeLink, observed: Observed) -> None:
        number = observed.round + 1
        if observed.phase is AgentPhase.SUCCEEDED:
            link.decide(JobState.SUCCEEDED)
        elif observed.offer and not observed.phase.may_have_workers:
            left.append(sorted(path.name for path in scratch.rglob("*")))
            link.run_round(number, offer_id=observed.offer.offer_id, restart_count=number, world_size=2)

    link = FakeLink(answer)
    spec = WorkerSpec("default", 2, link, entrypoint=fails_first, args=(rounds,), local_addr="127.0.0.1")
    result = LocalElasticAgent(spec, DefaultLogsSpecs(str(logs), redirects=Std.ALL)).run()
    assert result.return_values == {0: rounds, 1: rounds}
    assert len(left) == rounds + 1
    assert left[-1] == left[2] == left[0], "no round left a file"
