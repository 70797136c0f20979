"""The keeper: one small child process per agent, the parent of all workers.

It starts them, reports their ends, tears them down with everything they started, enforces the
fence even while the agent is stopped, and cleans up after an agent that was killed.

``client`` is the agent's side. The keeper's own program starts in ``child`` and runs
``supervisor``; it has to stay small, so it imports neither this file nor anything costly.
"""

from rallypoint_agent.keeper.attention import OVERDUE_NS, Attention
from rallypoint_agent.keeper.client import (
    Keeper,
    KeeperError,
    KeeperMisuseError,
    KeeperTimeoutError,
    WorkerCommand,
    sweep_children,
)
from rallypoint_agent.keeper.events import (
    Answered,
    Gone,
    KeeperDied,
    KeeperEvent,
    Spawned,
    SpawnFailed,
    WorkerExited,
)

__all__ = [
    "OVERDUE_NS",
    "Answered",
    "Attention",
    "Gone",
    "Keeper",
    "KeeperDied",
    "KeeperError",
    "KeeperEvent",
    "KeeperMisuseError",
    "KeeperTimeoutError",
    "SpawnFailed",
    "Spawned",
    "WorkerCommand",
    "WorkerExited",
    "sweep_children",
]
