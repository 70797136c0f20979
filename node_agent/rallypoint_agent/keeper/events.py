"""What the keeper tells its agent.

After a spawn comes either Spawned or SpawnFailed; or, if a stop or the fence overtakes it, only Gone.
A WorkerExited comes after its round's Spawned and before its Gone. Every stop is followed by a Gone,
and every question by an Answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rallypoint.values import dataclass

if TYPE_CHECKING:
    from rallypoint_agent.keeper.framing import Message


@dataclass(frozen=True, slots=True)
class Spawned:
    """Every worker runs its program. ``pids`` is by local rank."""

    round: int
    pids: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """This worker could not be started, and nothing of the round is alive any more."""

    round: int
    local_rank: int
    error: str


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """A worker ended; what it started may live on until the stop.

    ``exit_code`` is the negative number of the signal if one ended it. ``at_boot_ns`` is on
    CLOCK_BOOTTIME, ``wall_time`` in seconds since 1970; both are of when the keeper noticed.
    """

    round: int
    local_rank: int
    pid: int
    exit_code: int
    at_boot_ns: int
    wall_time: float


@dataclass(frozen=True, slots=True)
class Gone:
    """No process of the round's tree is alive. ``round`` is -1 if there never was one.

    ``fenced``: the fence struck while there were processes, or forbade to start them.
    """

    round: int
    fenced: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a question: the keeper is there.

    ``killing``: it sends SIGKILL to all that is left of the round; ``pids``: the first of what that last met.
    """

    round: int
    killing: bool
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class KeeperDied:
    """The keeper itself ended unasked, and the workers with it; what they started may be alive.

    Always the last event. Killing the rest is now the agent's: see ``sweep_children``.
    """

    exit_code: int


KeeperEvent = Spawned | SpawnFailed | WorkerExited | Gone | Answered | KeeperDied


def parse(message: Message) -> KeeperEvent:
    """The event that a frame from the keeper holds."""
    fields = {name: value for name, value in message.items() if name != "event"}
    match message["event"]:
        case "spawned":
            pids = {int(rank): pid for rank, pid in fields["pids"].items()}
            return Spawned(fields["round"], pids)
        case "spawn_failed":
            return SpawnFailed(**fields)
        case "exited":
            return WorkerExited(**fields)
        case "gone":
            return Gone(**fields)
        case "answered":
            return Answered(fields["round"], fields["killing"], tuple(fields["pids"]))
        case other:
            raise ValueError(f"the keeper reports {other!r}, which is no event")
