"""The keeper's post: who fills it, what it has to do without the agent, and what is left to do once the keeper died."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from rallypoint_agent.core.effects import SetIdentity
from rallypoint_agent.keeper import Keeper, KeeperTimeoutError, sweep_children
from rallypoint_agent.obituary import Obituary, obituary_command

_OBITUARY_MARGIN_S = 10.0
"""So much longer than it tries an obituary may take: its start, and its last call."""

logger = logging.getLogger(__name__)


class KeeperPost:
    """Whoever fills it is told its duties: the fence and the obituary.

    ``obituary``: what to report should the agent be killed; who it is about is filled in, and ``note_obituary`` called
    with each new version. It runs with ``environ``. ``hold_fds``, ``keep_children`` and ``keeper`` are as
    LocalElasticAgent has them.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        obituary: Obituary | None,
        note_obituary: Callable[[Obituary], None],
        *,
        hold_fds: Sequence[int],
        keep_children: Collection[int],
        keeper: Keeper | None = None,
    ) -> None:
        self.keeper: Keeper | None = None
        self.fence_ns: tuple[int, int] | None = None
        """When SIGTERM is due, and SIGKILL, by CLOCK_BOOTTIME."""
        self._environ = environ
        self._obituary = obituary
        self._note_obituary = note_obituary
        self._owes_obituary = False
        self._hold_fds = tuple(hold_fds)
        self._keep_children = frozenset(keep_children)
        self._candidate = keeper

    def fill(self) -> None:
        """Start a keeper, or take the one that was."""
        self.keeper = self._candidate or Keeper.start(hold_fds=self._hold_fds)
        self._candidate = None
        self._feed_fence()
        self._feed_obituary()

    def need(self) -> Keeper:
        assert self.keeper is not None, "_open comes first"
        return self.keeper

    def fds(self) -> list[int]:
        return [self.keeper.fileno()] if self.keeper else []

    def close(self, *, leaving_some: bool) -> None:
        """End the keeper; or part from it, if it has an obituary to deliver or ``leaving_some`` processes alive."""
        if self.keeper is None:
            return
        if self._owes_obituary or leaving_some:
            self.keeper.part()
            return
        try:
            self.keeper.close()
        except KeeperTimeoutError as error:
            logger.warning("the keeper: %s", error)

    # --- its duties

    def set_fence(self, term_at_ns: int, kill_at_ns: int) -> None:
        self.fence_ns = (term_at_ns, kill_at_ns)
        self._feed_fence()

    def set_identity(self, identity: SetIdentity) -> None:
        # Without a lease there is nobody to be missed. One that was lost may be reported gone.
        if self._obituary is not None and identity.lease_id:
            self._obituary = self._obituary._replace(job_uid=identity.job_uid, lease_id=identity.lease_id)
            self._feed_obituary()

    def owe_obituary(self, message: str) -> None:
        """The agent ends by itself, and nobody could be told: so it is delivered then too, if there is one."""
        if self.keeper is None or self._obituary is None:
            return
        logger.info("the coordinator is told that this agent is gone as soon as it can be, within its lease")
        self._obituary = self._obituary._replace(message=message)
        self._feed_obituary()
        self._owes_obituary = True

    def _feed_fence(self) -> None:
        if self.keeper is not None and self.fence_ns is not None:
            term_at_ns, kill_at_ns = self.fence_ns
            self.keeper.fence(term_at_ns=term_at_ns, kill_at_ns=kill_at_ns)

    def _feed_obituary(self) -> None:
        if self.keeper is None or self._obituary is None or not self._obituary.lease_id:
            return
        self._note_obituary(self._obituary)
        timeout = self._obituary.ttl_ms / 1000 + _OBITUARY_MARGIN_S
        self.keeper.obituary(obituary_command(self._obituary), self._environ, timeout=timeout)

    # --- once it died

    def vacate(self) -> None:
        """The keeper died: what it kept is ours to end, by ``sweep``, before there is another."""
        if self.keeper is not None:
            self.keeper.close()
        self.keeper = None

    def sweep(self, timeout: float) -> tuple[int, ...]:
        """Kill what descends from this process; what is left of it after ``timeout`` seconds."""
        try:
            sweep_children(self._keep_children, timeout=timeout)
        except KeeperTimeoutError as error:
            return error.pids
        return ()
