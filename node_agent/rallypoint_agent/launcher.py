"""Launching workers from Python, as torch.distributed.launcher.api does: what ``rallypoint run`` runs, as a call.

    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=4)
    returned = elastic_launch(config, train)("data", 0.1)

The entrypoint is a function that other processes can import, or a program's path. The call takes part in the job until
its end. It leaves logging alone: ``logging.getLogger("rallypoint_agent")`` at INFO tells what goes on.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any

from rallypoint_agent.api import RunResult
from rallypoint_agent.child_failed_error import NOT_AVAILABLE, ChildFailedError, ProcessFailure
from rallypoint_agent.core.effects import Finish, FinishKind
from rallypoint_agent.health_check_server import HealthCheckServer
from rallypoint_agent.launch_config import LaunchConfig, entrypoint_name, node_launch
from rallypoint_agent.local_elastic_agent import LocalElasticAgent
from rallypoint_agent.logs import DefaultLogsSpecs
from rallypoint_agent.node_launch import NodeLauncher, telemetry

__all__ = [
    "ChildFailedError",
    "LaunchConfig",
    "LaunchError",
    "ProcessFailure",
    "SignalException",
    "elastic_launch",
    "launch_agent",
]


class LaunchError(Exception):
    """The agent's part ended without success, and no worker is why: its text says what is, ``kind`` in one word."""

    def __init__(self, message: str, kind: FinishKind) -> None:
        super().__init__(message, kind)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.args[0])


class SignalException(Exception):
    """A signal ended the agent, and by it the workers. ``sigval`` says which."""

    def __init__(self, msg: str, sigval: signal.Signals) -> None:
        super().__init__(msg, sigval)
        self.sigval = sigval

    def __str__(self) -> str:
        return str(self.args[0])


class elastic_launch:
    """``elastic_launch(config, entrypoint)(*args)`` is ``launch_agent(config, entrypoint, args)``."""

    def __init__(
        self,
        config: LaunchConfig,
        entrypoint: Callable[..., Any] | str,
        health_check_server: HealthCheckServer | None = None,
    ) -> None:
        self._config = config
        self._entrypoint = entrypoint
        self._health_check_server = health_check_server

    def __call__(self, *args: object) -> dict[int, Any]:
        return launch_agent(self._config, self._entrypoint, args, self._health_check_server)


def launch_agent(
    config: LaunchConfig,
    entrypoint: Callable[..., Any] | str,
    args: Sequence[object],
    health_check_server: HealthCheckServer | None = None,
) -> dict[int, Any]:
    """Run this node's workers until the job's end. Returns what they returned, by global rank.

    A program's workers return None. An agent that was drained has nothing to return: {}.

    Raises ChildFailedError if a worker's failure ended the job, SignalException if a signal ended the agent,
    LaunchError if anything else did (no coordinator, refused, cancelled), ValueError for what makes no sense, and what
    says that nothing can run here: CoordinatorStartError, KeeperError, LeftoversError, NumaBindingError, WatchdogError.
    """
    launch = node_launch(config, entrypoint, tuple(args), health_check_server)
    logs_specs = config.logs_specs if config.logs_specs is not None else DefaultLogsSpecs()
    with NodeLauncher(launch) as launcher, telemetry(launch):
        agent = launcher.agent(logs_specs)
        result = launcher.run(agent)
    finish = agent.finish
    assert finish is not None
    if finish.kind is FinishKind.DRAINED:
        return {}
    if result.is_failed():
        raise _why(finish, result, agent, entrypoint_name(entrypoint, tuple(args)))
    return result.return_values


def _why(finish: Finish, result: RunResult, agent: LocalElasticAgent, name: str) -> Exception:
    if finish.kind is FinishKind.SIGNALLED:
        return SignalException(finish.message, signal.Signals(finish.signal))
    culprit = finish.outcome.culprit if finish.outcome else None
    if culprit is None:
        return LaunchError(finish.message, finish.kind)
    failures = {
        rank: ProcessFailure(failure, agent.error_file(failure) or NOT_AVAILABLE)
        for rank, failure in sorted(result.failures.items())
    }
    return ChildFailedError(name, failures, culprit.rank)
