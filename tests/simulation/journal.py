"""The journal as one coordinator process has it: the port of the real ones, over a disk that may fail in every way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from functools import partial

from rallypoint_coordinator.store.journal import (
    AppendResult,
    Bounds,
    Committed,
    Fenced,
    NotWritten,
    Snapshot,
    Stored,
    Unknown,
)
from simulation.disk import Disk
from simulation.loop import VirtualLoop
from simulation.world import Chance, World

LATE_MS = (1, 5_000)
"""How long after its answer an append may still come to the disk."""


class Doubt(StrEnum):
    """What became of an append that is not confirmed."""

    LANDED = "it landed"
    LOST = "it did not land"
    LANDS_LATE = "it lands later, if nothing else was written before"


class SimJournal:
    """``doubt``: the next append is not confirmed. ``crash`` is asked before and after it, with whether it is durable:
    True if the process died. ``appended`` is told how many records each confirmed one has, before the driver is."""

    where = "on the simulated disk"

    def __init__(
        self,
        *,
        world: World,
        chance: Chance,
        loop: VirtualLoop,
        disk: Disk,
        bounds: Bounds,
        crash: Callable[[bool], bool],
        appended: Callable[[int], None],
    ) -> None:
        self.bounds = bounds
        self.doubt: Doubt | None = None
        self._world = world
        self._chance = chance
        self._loop = loop
        self._disk = disk
        self._losses = disk.losses
        self._crash = crash
        self._appended = appended
        self._under_way: tuple[int, Sequence[bytes]] | None = None

    def die(self) -> None:
        """The append under way, if there is one, may or may not reach the disk."""
        if self._under_way is not None and not self._disk.is_full and self._chance.happens(0.5):
            self._land_late(*self._under_way)
        self._under_way = None

    async def append(self, expected_revision: int, records: Sequence[bytes]) -> AppendResult:
        self._under_way = expected_revision, records
        await self._takes(self._disk.delay_ms)
        self._under_way = None
        if self._crash(False):
            await self._loop.create_future()
        if expected_revision != self._disk.revision:
            return Fenced(self._disk.revision)
        if self._disk.is_full:
            return NotWritten("no space left on device")
        doubt, self.doubt = self.doubt, None
        if doubt is not None:
            return self._unconfirmed(expected_revision, records, doubt)
        self._disk.append(records)
        self._appended(len(records))
        if self._crash(True):
            await self._loop.create_future()
        return Committed(self._disk.revision)

    def _unconfirmed(self, expected_revision: int, records: Sequence[bytes], doubt: Doubt) -> Unknown:
        self._world.tell("!", "disk", f"{len(records)} records are not confirmed: {doubt}")
        if doubt is Doubt.LANDED:
            self._disk.append(records)
        elif doubt is Doubt.LANDS_LATE:
            self._world.after(self._chance.between(*LATE_MS), partial(self._land_late, expected_revision, records))
        return Unknown(f"simulated: {doubt}")

    def _land_late(self, expected_revision: int, records: Sequence[bytes]) -> None:
        if expected_revision == self._disk.revision and self._losses == self._disk.losses:
            self._disk.append(records)

    async def read_snapshot(self) -> Snapshot | None:
        await self._read()
        return self._disk.snapshot

    async def read(self, after_revision: int = 0) -> AsyncIterator[Stored]:
        await self._read()
        for stored in self._disk.after(after_revision):
            yield stored

    async def write_snapshot(self, snapshot: Snapshot, keep_records: int) -> None:
        """First the snapshot, then the records that it stands for: a crash may come between them."""
        await self._write()
        self._disk.replace_snapshot(snapshot)
        await self._write()
        self._disk.drop(snapshot.revision - keep_records)

    async def verify(self) -> None:
        """The simulated disk stays where it is."""

    async def close(self) -> None:
        """Nothing to release."""

    async def _read(self) -> None:
        await self._takes(self._disk.delay_ms)
        if self._disk.unreadable:
            self._disk.unreadable -= 1
            raise OSError("simulated: input/output error")

    async def _write(self) -> None:
        await self._takes(self._disk.delay_ms)
        if self._disk.is_full:
            raise OSError("simulated: no space left on device")

    async def _takes(self, span_ms: tuple[int, int]) -> None:
        await self._loop.sleep_ms(self._chance.between(*span_ms))
