"""What was decided becomes durable, and only then visible (C6)."""

from __future__ import annotations

import asyncio
import logging
from typing import assert_never

from rallypoint.errors import Reason
from rallypoint_coordinator.core.cluster import Cluster
from rallypoint_coordinator.core.effects import Effect, Output
from rallypoint_coordinator.server.clock import Clock
from rallypoint_coordinator.server.outlets import Outlets
from rallypoint_coordinator.server.turns import Batch, pack
from rallypoint_coordinator.server.watches import Watches
from rallypoint_coordinator.store.journal import (
    AppendResult,
    Committed,
    Fenced,
    Journal,
    JournalError,
    NotWritten,
    Unknown,
)

log = logging.getLogger(__name__)

EFFECTS_AT_ONCE = 512
"""Their messages are written in about 10 ms."""


class StateLost(Exception):
    """What the cluster in memory says is not known to be what the journal says. ``reason``: what others are told."""

    def __init__(self, message: str, reason: Reason = Reason.RECOVERING) -> None:
        super().__init__(message)
        self.reason = reason


class Commits:
    """Appends outputs of the core to the journal, and performs each effect behind the records that lead to it."""

    def __init__(self, journal: Journal, outlets: Outlets, watches: Watches, clock: Clock) -> None:
        self._journal = journal
        self._outlets = outlets
        self._watches = watches
        self._clock = clock
        self._revision = 0

    @property
    def revision(self) -> int:
        """Of the last record that is durable."""
        return self._revision

    def begin_at(self, revision: int) -> None:
        """The journal was read up to here."""
        self._revision = revision

    async def commit(self, cluster: Cluster, outputs: list[Output]) -> None:
        """Make the records durable and then let the effects out, both in order.

        Raises StateLost if the records are not known to be durable, and JournalError if the journal is of no use.
        """
        if sum(len(output.effects) for output in outputs) > EFFECTS_AT_ONCE:
            await asyncio.sleep(0)  # to decide so much has taken long, and so will packing it
        for batch in self._packed(outputs):
            if batch.records:
                await self._append(cluster, batch)
            await self._perform(batch.effects)

    async def _perform(self, effects: list[Effect]) -> None:
        """Some at a time: what is for all agents of a large job is written meanwhile, and others are heard."""
        for first in range(0, len(effects), EFFECTS_AT_ONCE):
            if first:
                await asyncio.sleep(0)
            self._outlets.perform_all(effects[first : first + EFFECTS_AT_ONCE])

    def _packed(self, outputs: list[Output]) -> list[Batch]:
        try:
            return list(pack(outputs, self._journal.bounds))
        except Exception as error:
            log.exception("the core decided what cannot be stored")
            raise StateLost("the core decided what cannot be stored") from error

    async def _append(self, cluster: Cluster, batch: Batch) -> None:
        result = await self._result_of(batch)
        match result:
            case Committed(revision):
                self._watches.publish(batch.entries, batch.records, self._revision)
                self._revision = revision
                cluster.committed(revision, self._clock.wall_ms())
            case Fenced(actual):
                # The other one decides: an agent must not take our recovery for a promise that nobody does.
                raise StateLost(f"another coordinator has written the journal up to revision {actual}", Reason.FENCED)
            case NotWritten(why):
                raise StateLost(f"the journal cannot be written: {why}")
            case Unknown(why):
                raise StateLost(f"the journal did not confirm what was appended: {why}")
            case _:
                assert_never(result)

    async def _result_of(self, batch: Batch) -> AppendResult:
        try:
            return await self._journal.append(self._revision, batch.records)
        except JournalError:
            raise
        except Exception as error:
            return Unknown(f"{type(error).__name__}: {error}")
