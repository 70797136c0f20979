"""Whether a keeper that has to end a round is there to do it. The agent's side."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rallypoint.model import KILL_PATIENCE_MS

if TYPE_CHECKING:
    from rallypoint_agent.keeper.client import Keeper
    from rallypoint_agent.keeper.events import Answered

ANSWER_NS = 10**9
"""So long a keeper may take to answer. It is what lies between the fence's SIGKILL and the lease's end: whoever has to
do a silent keeper's duty begins by then."""

OVERDUE_NS = KILL_PATIENCE_MS * 10**6
"""Processes that are still there so long after their SIGKILL are stuck in the kernel."""

NEVER_NS = 2**63 - 1

logger = logging.getLogger(__name__)


class Attention:
    """Asks the keeper again and again, from shortly before it has to kill on, and kills one that does not answer.

    A keeper may be stopped, or hang; its death, and the workers' by it, leaves the rest to the agent. One that answers
    is left alone, however long what it kills takes to end. Instants are nanoseconds of CLOCK_BOOTTIME.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._next_ns = 0
        self._is_asked = False
        self._survivors: tuple[int, ...] = ()
        self.stuck: tuple[int, ...] = ()
        """What SIGKILL did not end, once that is certain."""

    def answered(self, event: Answered) -> None:
        self._is_asked = False
        self._survivors = event.pids if event.killing else ()

    def look(self, now_ns: int, kill_at_ns: int) -> int:
        """Do what is due while the round is not gone; returns when to look again."""
        due_ns = max(self._next_ns, kill_at_ns - ANSWER_NS)
        if now_ns < due_ns:
            return due_ns
        self._next_ns = now_ns + ANSWER_NS
        if self._is_asked:
            logger.error("the keeper does not answer: killing it")
            self._keeper.kill()
            self._next_ns = NEVER_NS
        else:
            self._is_asked = True
            self._keeper.ask()
            if now_ns - kill_at_ns > OVERDUE_NS:
                self.stuck = self._survivors
        return self._next_ns
