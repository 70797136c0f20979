"""torch's own classes beside ours: who knows those knows these."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import rallypoint_agent as ours

theirs = pytest.importorskip("torch.distributed.elastic.agent.server")

Arguments = list[tuple[str, Any]]


def arguments(function: Callable[..., object]) -> Arguments:
    """Those that may be given by position, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return [(one.name, one.default) for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]


def local_elastic_agent() -> Any:
    return pytest.importorskip("torch.distributed.elastic.agent.server.local_elastic_agent").LocalElasticAgent


@pytest.mark.parametrize("name", ["WorkerSpec", "RunResult"])
def test_data_has_torchs_fields(name: str) -> None:
    of_both = [
        [(field.name, field.default) for field in dataclasses.fields(getattr(module, name))]
        for module in (ours, theirs)
    ]
    assert of_both[0] == of_both[1]


@pytest.mark.parametrize("name", ["Worker", "WorkerGroup", "SimpleElasticAgent"])
def test_classes_are_made_as_torchs(name: str) -> None:
    assert arguments(getattr(ours, name)) == arguments(getattr(theirs, name))


def test_a_worker_group_has_torchs_attributes() -> None:
    assert set(ours.Worker.__slots__) == set(theirs.Worker.__slots__)
    assert set(ours.WorkerGroup.__slots__) == {*theirs.WorkerGroup.__slots__, "assignment"}


def test_states_are_torchs() -> None:
    assert [state.value for state in ours.WorkerState] == [state.value for state in theirs.WorkerState]


def test_the_local_agent_is_made_as_torchs() -> None:
    assert arguments(ours.LocalElasticAgent) == arguments(local_elastic_agent())


METHODS = ["_start_workers", "_monitor_workers", "_shutdown", "run", "get_worker_group", "record_duration"]
METHODS += ["_construct_event", "_record_worker_events", "_get_worker_state", "get_event_failed", "get_event_succeeded"]
METHODS += ["_record_metrics", "_record_metric_with_condition", "_record_flakiness_metric", "_stop_workers"]


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_called_as_torchs(name: str) -> None:
    """Subclasses override and call them. ``is_restart`` is what some of torch's own have."""
    more = [("is_restart", False)] if name == "_stop_workers" else []
    assert arguments(getattr(ours.SimpleElasticAgent, name)) == (
        arguments(getattr(theirs.SimpleElasticAgent, name)) + more
    )
