"""The journal port: what the coordinator needs of a store, shaped so that SQLite and etcd both fit behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from rallypoint.values import dataclass


@dataclass(frozen=True, slots=True)
class Committed:
    """All records are durable; the last one has this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """Nothing was written: somebody else wrote first, and the journal is at revision ``actual``."""

    actual: int


@dataclass(frozen=True, slots=True)
class NotWritten:
    """Nothing was written: the store could not."""

    why: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The records may be durable or not: only reading the journal again can tell."""

    why: str


AppendResult = Committed | Fenced | NotWritten | Unknown


class Stored(NamedTuple):
    """One record as it was written."""

    revision: int
    data: bytes


class Snapshot(NamedTuple):
    """What the records up to and including ``revision`` led to."""

    revision: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """What fits into one append."""

    records: int
    bytes: int


class JournalError(Exception):
    """The journal cannot be used, and a person has to act. The text is one line: what is wrong, where, what to do."""


class UnusableJournal(JournalError):
    """The journal is sound, as far as is known, but this coordinator cannot use it."""


class JournalUnavailable(OSError):
    """The store cannot do now what it should be able to do later."""


class DamagedJournal(JournalError):
    """The journal cannot be read to its end; going on without the rest would forget decisions."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(
            f"the journal {where} is damaged: {what}; restore a backup of it, or move it away to begin with an empty"
            " one: jobs that are running then come back from what their agents know, and only those"
        )


class Compacted(Exception):
    """The records asked for are kept no more: ``first_revision`` is the first that is."""

    def __init__(self, first_revision: int) -> None:
        super().__init__(f"records before revision {first_revision} are not kept any more")
        self.first_revision = first_revision


class Journal(Protocol):
    """A sequence of records, numbered from 1 without a gap: a record's number is its revision.

    A snapshot stands for all records up to its revision, of which only the last few are kept then. Appends and reads
    do not overlap, and none is cancelled while it runs; one snapshot may be written beside appends.
    """

    @property
    def where(self) -> str:
        """What people call the journal: a file's path, for example."""
        ...

    @property
    def bounds(self) -> Bounds:
        """The caller splits what is larger. One record alone may exceed ``bytes``, and may be NotWritten then."""
        ...

    async def append(self, expected_revision: int, records: Sequence[bytes]) -> AppendResult:
        """Make the records durable, all or none, if the journal is at ``expected_revision``. At least one record.

        Raises DamagedJournal.
        """
        ...

    async def read_snapshot(self) -> Snapshot | None:
        """The newest snapshot. Raises DamagedJournal, or OSError if it cannot be read now."""
        ...

    def read(self, after_revision: int = 0) -> AsyncIterator[Stored]:
        """The records after a revision, in order. Raises Compacted, DamagedJournal, or OSError if it cannot now."""
        ...

    async def write_snapshot(self, snapshot: Snapshot, keep_records: int) -> None:
        """Replace the newest snapshot, then drop the records up to it but for the last ``keep_records``.

        Takes several small transactions, so that appends get their turn; one that fails leaves the earlier snapshot
        and all records after it. Raises OSError or DamagedJournal.
        """
        ...

    async def verify(self) -> None:
        """See that the journal is where it was, so that what is appended would be found again.

        Appends and reads see to that too; this is for when there are none. Raises JournalError or OSError.
        """
        ...

    async def close(self) -> None:
        """Release what the backend holds. Everything committed stays."""
        ...
