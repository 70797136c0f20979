"""The workers of one round on one node, as they really are."""

from __future__ import annotations

from dataclasses import dataclass, field

from rallypoint.model import Assignment, WorkerFailure


@dataclass(slots=True, kw_only=True, eq=False)
class Group:
    """The workers of one round on one node. ``live``: some process of their trees is."""

    job_uid: str
    node: str
    incarnation: str
    assignment: Assignment
    stubborn: bool
    unkillable: bool
    hangs: bool = False
    """Its workers never come to run."""
    stuck: bool = False
    """The agent was told that SIGKILL does not end it."""
    live: bool = True
    announced: bool = False
    succeeded: bool = False
    failed: bool = False
    spawn_failed: bool = False
    """A worker could not be started, and nothing of the round is alive any more."""
    stop_sent: bool = False
    fenced: bool = False
    kill_at_ms: int | None = None
    """When SIGKILL is due, in virtual time."""
    untold: list[WorkerFailure] = field(default_factory=list)
    """What failed and was not yet told to the agent's main thread."""

    @property
    def round(self) -> int:
        return self.assignment.round

    def take_failures(self) -> tuple[WorkerFailure, ...]:
        failures, self.untold = tuple(self.untold), []
        return failures

    def take_own_failures(self) -> tuple[WorkerFailure, ...]:
        """Those that came before any stop was sent."""
        own = tuple(failure for failure in self.untold if not failure.after_stop)
        self.untold = [failure for failure in self.untold if failure.after_stop]
        return own
