"""The main thread's side of a link, as a test plays it."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from rallypoint.model import AgentPhase, Capability, Directive, Endpoint, Hold, JobSpec, NodeSpec, Observed, Version
from rallypoint_agent.core.events import Event
from rallypoint_agent.link import Link, LinkConfig
from support.fake_coordinator import JOB_UID, WAIT_S

E = TypeVar("E", bound=Event)


class Agent:
    """The main thread's part: a link, and the events that came from it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.seen: list[Event] = []
        self._unread: list[Event] = []

    def next(self, kind: type[E]) -> E:
        """The next event of this kind, past all others; it must come."""
        deadline = time.monotonic() + WAIT_S
        while True:
            while self._unread:
                event = self._unread.pop(0)
                if isinstance(event, kind):
                    return event
            assert self._wait(deadline - time.monotonic()), f"no {kind.__name__}, but {self.seen}"

    def look(self) -> list[Event]:
        """Everything so far."""
        self._wait(0)
        return self.seen

    def wait_until_left(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while not self.link.left:
            assert self._wait(deadline - time.monotonic())

    def _wait(self, seconds: float) -> bool:
        readable, _, _ = select.select([self.link], [], [], max(0.0, seconds))
        events = self.link.events()
        self.seen += events
        self._unread += events
        return bool(readable)


@contextlib.contextmanager
def attaching() -> Iterator[Callable[..., Agent]]:
    """Gives a function that starts a link to these endpoints, and closes the links in the end."""
    with contextlib.ExitStack() as links:

        def start(*endpoints: Endpoint, **changes: Any) -> Agent:
            link = Link(replace(link_config(*endpoints), **changes))
            links.callback(link.close)
            link.start()
            return Agent(link)

        yield start


def link_config(*endpoints: Endpoint) -> LinkConfig:
    return LinkConfig(
        endpoints=endpoints,
        job="job-1",
        node="node-a",
        incarnation="incarnation-1",
        job_spec=JobSpec(min_nodes=1, max_nodes=4),
        node_spec=NodeSpec(local_world_size=2, labels={"rack": "r1"}),
        agent_version="rallypoint-agent/0",
        capabilities=frozenset(Capability),
        first_backoff_ms=5,
        longest_backoff_ms=20,
    )


@contextlib.contextmanager
def silent_listener() -> Iterator[socket.socket]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        yield listener


def endpoint_of(listener: socket.socket) -> Endpoint:
    return Endpoint(*listener.getsockname())


def observed(revision: int, phase: AgentPhase = AgentPhase.READY) -> Observed:
    return Observed(version=Version(1, revision), phase=phase)


def directive(revision: int) -> Directive:
    return Directive(
        version=Version(1, revision), job_uid=JOB_UID, reason="WAITING_FOR_NODES", message="wait", action=Hold()
    )
