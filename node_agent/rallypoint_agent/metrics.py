"""Metrics: named numbers, in groups, each group with a handler. The names are torch's.

By default all metrics go nowhere. ``configure(ConsoleMetricHandler())`` prints them; ``rallypoint run`` does so with
``--metric-handler console``. Its other names are entry points of the group ``rallypoint.metric_handlers``: a
:class:`MetricHandler`, or what makes one when called without arguments.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache, wraps
from typing import NamedTuple, ParamSpec, TypeVar, overload

from rallypoint_agent import entry_points
from rallypoint_agent.background import Background

__all__ = [
    "ConsoleMetricHandler",
    "MetricData",
    "MetricHandler",
    "MetricHandlerInBackground",
    "MetricStream",
    "NullMetricHandler",
    "configure",
    "getStream",
    "metric_handler",
    "prof",
    "put_metric",
]

ENTRY_POINTS = "rallypoint.metric_handlers"
GROUP = "torchelastic"

P = ParamSpec("P")
R = TypeVar("R")


class MetricData(NamedTuple):
    """One value. ``timestamp``: seconds since the epoch."""

    timestamp: float
    group_name: str
    name: str
    value: float


class MetricHandler(ABC):
    @abstractmethod
    def emit(self, metric_data: MetricData) -> None:
        """Take one value. Whoever put it waits for this."""


class ConsoleMetricHandler(MetricHandler):
    """Prints ``[timestamp][group]: name=value`` on standard output."""

    def emit(self, metric_data: MetricData) -> None:
        timestamp, group, name, value = metric_data
        print(f"[{timestamp}][{group}]: {name}={value}", flush=True)


class NullMetricHandler(MetricHandler):
    def emit(self, metric_data: MetricData) -> None:
        """Forget it."""


class MetricHandlerInBackground(MetricHandler):
    """Hands values over to another handler's thread, so that whoever put one does not wait."""

    def __init__(self, handler: MetricHandler, background: Background) -> None:
        self._handler = handler
        self._background = background

    def emit(self, metric_data: MetricData) -> None:
        self._background.call(lambda: self._handler.emit(metric_data))


class MetricStream:
    """A group and its handler."""

    def __init__(self, group_name: str, handler: MetricHandler) -> None:
        self.group_name = group_name
        self.handler = handler

    def add_value(self, metric_name: str, metric_value: float) -> None:
        self.handler.emit(MetricData(time.time(), self.group_name, metric_name, metric_value))


_default: list[MetricHandler] = [NullMetricHandler()]
_by_group: dict[str, MetricHandler] = {}


def configure(handler: MetricHandler, group: str | None = None) -> None:
    """Send a group's metrics to ``handler``; without a group, those of all groups that have none of their own."""
    if group is None:
        _default[0] = handler
    else:
        _by_group[group] = handler


@cache
def metric_handler(name: str) -> MetricHandler:
    """The handler of a name, always the same one. Raises EntryPointError if there is none."""
    if name == "null":
        return NullMetricHandler()
    if name == "console":
        return ConsoleMetricHandler()
    made = entry_points.load(ENTRY_POINTS, name)()
    if not callable(getattr(made, "emit", None)):
        raise entry_points.EntryPointError(f"{name} makes no MetricHandler but {made!r}")
    return made  # type: ignore[no-any-return]


def getStream(group: str) -> MetricStream:
    """Where a group's metrics go now."""
    return MetricStream(group, _by_group.get(group, _default[0]))


def put_metric(metric_name: str, metric_value: float, metric_group: str = GROUP) -> None:
    getStream(metric_group).add_value(metric_name, metric_value)


def put_call(name: str, succeeded: bool, duration_s: float, group: str = GROUP) -> None:
    """What :func:`prof` puts for a call."""
    put_metric(f"{name}.{'success' if succeeded else 'failure'}", 1, group)
    put_metric(f"{name}.duration.ms", int(duration_s * 1000), group)


@overload
def prof(fn: Callable[P, R], group: str = ...) -> Callable[P, R]: ...
@overload
def prof(fn: None = None, group: str = ...) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def prof(
    fn: Callable[P, R] | None = None, group: str = GROUP
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function: ``Class.name.success`` or ``.failure`` is 1, ``.duration.ms`` how long it took.

    A function outside of a class has its module's name instead of the class's.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        name = _metric_name(function)

        @wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            began = time.perf_counter()
            succeeded = False
            try:
                result = function(*args, **kwargs)
                succeeded = True
                return result
            finally:
                put_call(name, succeeded, time.perf_counter() - began, group)

        return timed

    return wrap(fn) if fn else wrap


def _metric_name(function: Callable[..., object]) -> str:
    name = function.__qualname__
    return name if "." in name else f"{function.__module__.rpartition('.')[2]}.{name}"
