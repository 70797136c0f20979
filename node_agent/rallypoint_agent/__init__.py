"""The node agent: one per node, it runs the workers and does what the coordinator decides.

The names that torch.distributed.elastic.agent.server and torch.distributed.launcher have are here too, imported when
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rallypoint_agent.api import (
        ElasticAgent,
        RunResult,
        Worker,
        WorkerGroup,
        WorkerSpec,
        WorkerState,
    )
    from rallypoint_agent.child_failed_error import ChildFailedError, ProcessFailure
    from rallypoint_agent.launch_config import LaunchConfig
    from rallypoint_agent.launcher import LaunchError, SignalException, elastic_launch, launch_agent
    from rallypoint_agent.local_elastic_agent import LocalElasticAgent
    from rallypoint_agent.logs import DefaultLogsSpecs, LogsDest, LogsSpecs, Std
    from rallypoint_agent.numa import AffinityMode, NumaOptions
    from rallypoint_agent.simple_elastic_agent import SimpleElasticAgent

__all__ = [
    "AffinityMode",
    "ChildFailedError",
    "DefaultLogsSpecs",
    "ElasticAgent",
    "LaunchConfig",
    "LaunchError",
    "LocalElasticAgent",
    "LogsDest",
    "LogsSpecs",
    "NumaOptions",
    "ProcessFailure",
    "RunResult",
    "SignalException",
    "SimpleElasticAgent",
    "Std",
    "Worker",
    "WorkerGroup",
    "WorkerSpec",
    "WorkerState",
    "elastic_launch",
    "launch_agent",
]

_MODULES = {
    "AffinityMode": "numa",
    "ChildFailedError": "child_failed_error",
    "DefaultLogsSpecs": "logs",
    "LaunchConfig": "launch_config",
    "LaunchError": "launcher",
    "LocalElasticAgent": "local_elastic_agent",
    "LogsDest": "logs",
    "LogsSpecs": "logs",
    "NumaOptions": "numa",
    "ProcessFailure": "child_failed_error",
    "SignalException": "launcher",
    "SimpleElasticAgent": "simple_elastic_agent",
    "Std": "logs",
    "elastic_launch": "launcher",
    "launch_agent": "launcher",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
