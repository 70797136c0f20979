"""Whether a keeper that has to end a round is there to do it. The agent's side."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rallypoint_agent.keeper.client import Keeper
    from rallypoint_agent.keeper.events import Answered

ANSWER_NS = 10**9
"""So long a keeper may take to answer. It is what lies between the fence's SIGKILL and the lease's end: whoever has to
do a silent keeper's duty begins by then."""

OVERDUE_NS = 10 * 10**9
"""Processes that are still there so long after their SIGKILL are worth a line."""

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
        self._is_killing = False
        self._leftovers = Leftovers()

    def answered(self, event: Answered) -> None:
        self._is_asked = False
        self._is_killing = event.killing

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
            if self._is_killing:
                self._leftovers.tell(now_ns - kill_at_ns)
        return self._next_ns


class Leftovers:
    """What SIGKILL does not end: told once, and waited for."""

    def __init__(self) -> None:
        self._is_told = False

    def tell(self, killed_for_ns: int) -> None:
        if killed_for_ns > OVERDUE_NS and not self._is_told:
            self._is_told = True
            logger.warning("some processes of the workers do not end, not even by SIGKILL")
