"""Which role each method needs, and where its request names the job: one table.

A method that is not in it is refused to everybody, so a new one cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Any

from rallypoint.values import dataclass


class Role(StrEnum):
    """What a caller is trusted with; one does not include another."""

    READ = "read"
    """To see every job, or one."""
    AGENT = "agent"
    """To take part in jobs as a node of theirs, to see them, and to end them."""
    OPERATOR = "operator"
    """To see jobs, and to change how they go on."""


class Subject(Enum):
    """Where a request says which job it is about."""

    NOTHING = "it is about no job"
    ALL_JOBS = "it is about every job"
    NAME = "name, as jobs/JOB or jobs/JOB/..."
    RESOURCE = "job.name, as jobs/JOB"
    PARENT = "parent, as jobs/JOB or jobs/JOB/..."
    JOB = "job"
    HELLO = "hello.job of the stream's first message"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a method needs. ``roles``: any one of them will do; None: no credentials are needed at all."""

    roles: frozenset[Role] | None
    subject: Subject


def _rule(subject: Subject, *roles: Role) -> Rule:
    return Rule(frozenset(roles), subject)


_ANYONE = Rule(None, Subject.NOTHING)

_AGENTS = "/rallypoint.v1.AgentService/"
_CLUSTER = "/rallypoint.v1.ClusterService/"
_JOBS = "/rallypoint.v1.JobService/"
_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/"

POLICY: Mapping[str, Rule] = {
    f"{_AGENTS}Attach": _rule(Subject.HELLO, Role.AGENT),
    f"{_AGENTS}ReportGone": _rule(Subject.JOB, Role.AGENT),
    f"{_CLUSTER}GetCluster": _rule(Subject.ALL_JOBS, Role.READ, Role.OPERATOR),
    f"{_JOBS}GetJob": _rule(Subject.NAME, *Role),
    f"{_JOBS}ListJobs": _rule(Subject.ALL_JOBS, Role.READ, Role.OPERATOR),
    f"{_JOBS}ListNodes": _rule(Subject.PARENT, *Role),
    f"{_JOBS}ListWorkers": _rule(Subject.PARENT, *Role),
    f"{_JOBS}ListJobEvents": _rule(Subject.PARENT, *Role),
    f"{_JOBS}WatchJob": _rule(Subject.NAME, *Role),
    # torchrun's agent closes its rendezvous by it; and an agent can end its job by failing it.
    f"{_JOBS}CancelJob": _rule(Subject.NAME, Role.AGENT, Role.OPERATOR),
    f"{_JOBS}RestartJob": _rule(Subject.NAME, Role.OPERATOR),
    f"{_JOBS}DrainNode": _rule(Subject.NAME, Role.OPERATOR),
    f"{_JOBS}UpdateJob": _rule(Subject.RESOURCE, Role.OPERATOR),
    f"{_JOBS}HoldJob": _rule(Subject.NAME, Role.OPERATOR),
    f"{_JOBS}ReleaseJob": _rule(Subject.NAME, Role.OPERATOR),
    # Load balancers and probes have no credentials. It says whether the coordinator serves, and no more.
    f"{_HEALTH}Check": _ANYONE,
    f"{_HEALTH}Watch": _ANYONE,
    # grpcio's servicer does not implement it; who asks is told so.
    f"{_HEALTH}List": _rule(Subject.NOTHING, *Role),
    f"{_REFLECTION}ServerReflectionInfo": _rule(Subject.NOTHING, *Role),
}


def job_of(subject: Subject, request: Any) -> str:
    """The job that a request is about; empty if it names none. The subject is one that names a job."""
    match subject:
        case Subject.NAME:
            return _job_in(request.name)
        case Subject.RESOURCE:
            return _job_in(request.job.name)
        case Subject.PARENT:
            return _job_in(request.parent)
        case Subject.JOB:
            return str(request.job)
        case Subject.HELLO:
            return str(request.hello.job)
        case Subject.NOTHING | Subject.ALL_JOBS:
            return ""


def _job_in(name: str) -> str:
    collection, _, rest = name.partition("/")
    return rest.partition("/")[0] if collection == "jobs" else ""
