"""What one run of a fleet gives, as plain values. Times are in seconds, CPU time is the server's."""

from __future__ import annotations

from typing import NamedTuple

from scoreboard.fleet.milestones import Latencies


class Plan(NamedTuple):
    """How much is measured: windows of a steady rate, so long each; how often all are told something; returns."""

    windows: int
    window_s: float
    tellings: int
    returns: int


class Join(NamedTuple):
    """All at once. ``running_s``: until the last agent has its place in the first round."""

    attached_s: float
    running_s: float
    cpu_s: float


class Steady(NamedTuple):
    """A window of heartbeats, or of echoes. ``own_cores``: what the load cost, on the other core."""

    cores: float
    own_cores: float
    rss_mib: float
    answers: Latencies


class Restart(NamedTuple):
    """A worker fails at one agent, and a new round begins.

    ``stop_s``: from the failure's report until the last agent is told to stop; ``run_s``: from when the last agent said
    that its workers are gone until the last one has its place in the new round.
    """

    stop_s: float
    run_s: float
    whole_s: float
    cpu_s: float


class Return(NamedTuple):
    """From a coordinator's SIGKILL until the next one listens, and until the last agent is attached to it."""

    serves_s: float
    attached_s: float
    cpu_s: float


class EchoFigures(NamedTuple):
    """The floor's. ``fan_outs_s``: one message to every stream, until the last one has it."""

    idle_mib: float
    join: Join
    windows: list[Steady]
    fan_outs_s: list[float]


class FleetFigures(NamedTuple):
    """The coordinator's. ``connects``: how many connections were made; ``ends``: how many streams did not last."""

    idle_mib: float
    join: Join
    windows: list[Steady]
    restarts: list[Restart]
    returns: list[Return]
    connects: int
    ends: int
