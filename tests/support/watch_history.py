"""What one reader of WatchJob was told, kept as it has to be judged; and what such a reader does next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from rallypoint.v1 import job_service_pb2 as pb

START_OVER = frozenset({"WATCH_EXPIRED", "JOB_NOT_FOUND", "OK"})
"""After these the token is of no more use; OK says that the life is decided, and there may be another one."""


class Told(NamedTuple):
    """``durable``: the journal's revision when it came; None: not known."""

    message: pb.WatchJobResponse
    durable: int | None = None


@dataclass
class Chain:
    """One snapshot, and all that came after it, over as many streams as it took.

    ``after``: the revision from which on all is to be told. ``resumed``: for each stream that went on with a token, how
    many messages had come and the token's revision. ``ended``: the stream ended with OK.
    """

    uid: str
    after: int
    told: list[Told] = field(default_factory=list)
    resumed: list[tuple[int, int]] = field(default_factory=list)
    ended: bool = False

    @property
    def messages(self) -> Iterator[pb.WatchJobResponse]:
        return (told.message for told in self.told)

    @property
    def events(self) -> list[pb.JobEvent]:
        return [event for message in self.messages for event in message.events]

    @property
    def revision(self) -> int:
        """All is told up to here."""
        return max((message.revision for message in self.messages), default=self.after)


class Reader:
    """Keeps the newest token, as every client must. ``expired``: how often it was no good any more."""

    def __init__(self, job: str) -> None:
        self.job = job
        self.token = ""
        self.chains: list[Chain] = []
        self.expired = 0
        self._is_fresh = False

    def request(self) -> pb.WatchJobRequest:
        """What it asks when it opens its next stream."""
        self._is_fresh = True
        return pb.WatchJobRequest(name=f"jobs/{self.job}", resume_token=self.token)

    def told(self, message: pb.WatchJobResponse, durable: int | None = None) -> None:
        if not self.token:
            self.chains.append(Chain(message.snapshot.uid, message.revision))
        self._note_resumed()
        self.chains[-1].told.append(Told(message, durable))
        self.token = message.resume_token

    def ended(self, how: str) -> None:
        """The name of the reason, OK, or anything else for a stream that broke."""
        self.expired += how == "WATCH_EXPIRED"
        if how == "OK" and self.token:
            self._note_resumed()
            self.chains[-1].ended = True
        if how in START_OVER:
            self.token = ""

    def _note_resumed(self) -> None:
        """The stream's first word: its token was taken."""
        if self._is_fresh and self.token:
            chain = self.chains[-1]
            chain.resumed.append((len(chain.told), chain.revision))
        self._is_fresh = False

    def forget(self) -> None:
        """Begin a new history, with the position that it has."""
        last = self.chains[-1] if self.chains else None
        self.chains = [Chain(last.uid, last.revision)] if last is not None and self.token else []
