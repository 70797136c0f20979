"""A link without a coordinator: what an agent reports is answered by the test."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rallypoint.model import (
    Action,
    AgentPhase,
    Assignment,
    Directive,
    Endpoint,
    Exit,
    JobSpec,
    JobState,
    Observed,
    Outcome,
    Run,
    Version,
    WatchdogStatus,
    Welcome,
)
from rallypoint_agent.core.events import Attached, DirectiveReceived, Event
from rallypoint_agent.link.clock import boot_ms
from support.agent_script import nothing_new

Answer = Callable[["FakeLink", Observed], None]


class FakeLink:
    """Attaches at once, unless told not to. ``answer`` is called with every report that says something new."""

    def __init__(
        self, answer: Answer, *, spec: JobSpec | None = None, attaches: bool = True, leaves: bool = True
    ) -> None:
        self.calls: list[str] = []
        self.reports: list[Observed] = []
        self.statuses: list[WatchdogStatus] = []
        self.alive_until_ms = 0
        self.left = self.released = False
        self._answer = answer
        self._spec = spec or JobSpec()
        self._attaches = attaches
        self._leaves = leaves
        self._revision = 0
        self._events: deque[Event] = deque()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    # --- what a test says

    def put(self, event: Event) -> None:
        self._events.append(event)
        os.eventfd_write(self._fd, 1)

    def set_answer(self, answer: Answer) -> None:
        self._answer = answer

    def direct(self, action: Action, message: str = "why") -> None:
        self._revision += 1
        version = Version(1, self._revision)
        directive = Directive(version=version, job_uid="uid", reason="R", message=message, action=action)
        self.put(DirectiveReceived(directive))

    def run_round(self, number: int, **changes: Any) -> None:
        self.direct(Run(assignment(number, **changes)))

    def decide(self, state: JobState) -> None:
        self.direct(Exit(Outcome(state=state, reason="R", message="it is decided")))

    @property
    def phases(self) -> list[AgentPhase]:
        """The phases that were reported, without repetitions."""
        phases = [observed.phase for observed in self.reports]
        return [phase for index, phase in enumerate(phases) if index == 0 or phase != phases[index - 1]]

    # --- what the agent calls

    def start(self) -> None:
        self.calls.append("start")
        if self._attaches:
            welcome = Welcome(
                cluster_id="cluster",
                job_uid="uid",
                lease_id=7,
                lease_ttl_ms=self._spec.lease_ttl_ms,
                heartbeat_interval_ms=self._spec.heartbeat_interval_ms,
                job_spec=self._spec,
                directive=nothing_new(),
            )
            self.put(Attached(welcome, boot_ms()))

    def fileno(self) -> int:
        return self._fd

    def events(self) -> list[Event]:
        if not self._events:
            return []
        os.eventfd_read(self._fd)
        events = list(self._events)
        self._events.clear()
        return events

    def report(self, observed: Observed, *, can_wait: bool = False) -> None:
        if not self.reports or observed != self.reports[-1]:
            self.reports.append(observed)
            self._answer(self, observed)

    def watchdog(self, status: WatchdogStatus) -> None:
        self.statuses.append(status)

    def set_identity(self, cluster_id: str, job_uid: str, lease_id: int) -> None:
        self.calls.append(f"identity {cluster_id} {job_uid} {lease_id}")

    def reattach(self) -> None:
        self.calls.append("reattach")

    def alive_until(self, boot_ms: int) -> None:
        self.alive_until_ms = boot_ms

    def leave(self, reason: str, message: str) -> None:
        self.calls.append(f"leave {reason}")
        self.left = self.released = self._leaves

    def local_address(self) -> str | None:
        return "10.0.0.7"

    def get_run_id(self) -> str:
        return "job7"

    def get_backend(self) -> str:
        return "fake"

    def close(self) -> None:
        self.calls.append("close")
        os.close(self._fd)


def assignment(number: int, *, group_rank: int = 0, world_size: int = 2, **changes: object) -> Assignment:
    """Of the last group rank of a job whose workers are all of one role."""
    made = Assignment(
        round=number,
        restart_count=0,
        group_rank=group_rank,
        group_world_size=group_rank + 1,
        first_rank=0,
        world_size=world_size,
        first_role_rank=0,
        role_world_size=world_size,
        endpoint=Endpoint("10.0.0.1", 4001),
    )
    return replace(made, **changes)  # type: ignore[arg-type]
