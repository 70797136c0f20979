from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

import rallypoint_agent
from rallypoint.model import Assignment, Endpoint
from rallypoint_agent.api import RunResult, Worker, WorkerGroup, WorkerSpec, WorkerState


def spec(**changes: object) -> WorkerSpec:
    fields = {"role": "trainer", "local_world_size": 2, "rdzv_handler": None, "entrypoint": "/x/run"}
    return WorkerSpec(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_specs_fields_have_torchs_order_and_defaults() -> None:
    fields = {
        field.name: field.default
        for field in dataclasses.fields(WorkerSpec)
        if field.default is not dataclasses.MISSING
    }
    names = [field.name for field in dataclasses.fields(WorkerSpec)]
    assert names[:3] == ["role", "local_world_size", "rdzv_handler"]
    assert names[3:] == list(fields)
    assert fields == {
        "fn": None,
        "entrypoint": None,
        "args": (),
        "max_restarts": 3,
        "monitor_interval": 0.1,
        "master_port": None,
        "master_addr": None,
        "local_addr": None,
        "event_log_handler": "null",
        "numa_options": None,
        "duplicate_stdout_filters": None,
        "duplicate_stderr_filters": None,
        "virtual_local_rank": False,
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"local_world_size": 0}, "local_world_size"),
        ({"monitor_interval": 0}, "monitor_interval"),
        ({"monitor_interval": float("nan")}, "monitor_interval"),
        ({"max_restarts": -1}, "max_restarts"),
        ({"entrypoint": None}, "entrypoint"),
        ({"entrypoint": ""}, "entrypoint"),
    ],
)
def test_nonsense_is_refused_by_name(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        spec(**changes)


def test_fn_is_torchs_old_name_for_the_entrypoint() -> None:
    with pytest.warns(DeprecationWarning, match="entrypoint"):
        made = spec(fn=print, entrypoint=None)
    assert made.entrypoint is print


def test_the_entrypoints_name() -> None:
    assert spec().get_entrypoint_name() == "run"
    assert spec(entrypoint=Worker.__str__).get_entrypoint_name() == "Worker.__str__"


def test_a_worker_shows_its_ranks() -> None:
    assert str(Worker(1, 5, 3, 9, 6)) == ("local_rank=1,global_rank=5,role_rank=3,world_size=9,role_world_size=6")
    assert Worker(0).id is None


@pytest.mark.parametrize("state", list(WorkerState))
def test_which_states_are_running(state: WorkerState) -> None:
    running = {WorkerState.HEALTHY, WorkerState.UNHEALTHY}
    assert WorkerState.is_running(state) == (state in running)
    assert state.value == state.name


def test_a_group_takes_its_place_from_the_assignment() -> None:
    group = WorkerGroup(spec())
    assert [worker.local_rank for worker in group.workers] == [0, 1]
    assert (group.state, group.group_rank, group.store) == (WorkerState.INIT, None, None)
    group.state = WorkerState.STOPPED
    assignment = Assignment(
        round=4,
        restart_count=1,
        group_rank=2,
        group_world_size=3,
        first_rank=5,
        world_size=9,
        first_role_rank=3,
        role_world_size=6,
        endpoint=Endpoint("10.0.0.1", 4001),
    )
    group.assign(assignment)
    assert str(group.workers[1]) == str(Worker(1, 6, 4, 9, 6))
    assert (group.group_rank, group.group_world_size) == (2, 3)
    assert (group.master_addr, group.master_port) == ("10.0.0.1", 4001)
    assert group.state is WorkerState.INIT
    group.set_ids({0: 100, 1: 101})
    assert [worker.id for worker in group.workers] == [100, 101]


@pytest.mark.parametrize("state", list(WorkerState))
def test_only_failed_is_failed(state: WorkerState) -> None:
    assert RunResult(state).is_failed() == (state is WorkerState.FAILED)


@pytest.mark.parametrize("name", rallypoint_agent.__all__)
def test_the_package_has_torchs_names(name: str) -> None:
    assert getattr(rallypoint_agent, name).__name__ == name
    assert name in dir(rallypoint_agent)


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="nothing_of_it"):
        rallypoint_agent.nothing_of_it  # noqa: B018


def test_importing_the_package_imports_nothing_of_it() -> None:
    program = (
        "import sys, rallypoint_agent\n"
        "print([name for name in sys.modules if name.startswith(('rallypoint_agent.', 'grpc'))])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
