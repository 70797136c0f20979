"""Whoever watches is told what docs/watch.md promises, whatever happens to the coordinator, the disk and the reader."""

from __future__ import annotations

from rallypoint.v1 import job_service_pb2 as pb
from simulation.world import Violation
from support.watch_guarantees import Broken, Records, check
from support.watch_history import Reader


class WatchOracle:
    """``may_expire``: whether a token can be no good though no record was lost, since little is kept."""

    def __init__(self, *, may_expire: bool) -> None:
        self.readers: list[Reader] = []
        self._may_expire = may_expire
        self._left: int | None = None

    def told(self, reader: Reader, message: pb.WatchJobResponse, durable: int) -> None:
        self._resumed(reader)
        reader.told(message, durable)

    def ended(self, reader: Reader, how: str) -> None:
        if how == "OK":
            self._resumed(reader)
        if how == "WATCH_EXPIRED" and not self._may_expire and self._left is None:
            raise Violation("WATCH", f"the token of {reader.job} has expired, but all is kept: {reader.token}")
        reader.ended(how)

    def _resumed(self, reader: Reader) -> None:
        """What is left of the journal after a loss must have all that the token's reader knows."""
        if reader.token and self._left is not None and not reader.chains[-1].told:
            after = reader.chains[-1].after
            if after > self._left:
                raise Violation("WATCH", f"a token of revision {after} goes on, and {self._left} records were left")

    def journal_lost(self, records: Records, left: int) -> None:
        """What was told until now is judged by what there was."""
        self.judge(records)
        self._left = left
        for reader in self.readers:
            reader.forget()

    def judge(self, records: Records) -> None:
        for reader in self.readers:
            try:
                check(reader.chains, records)
            except Broken as broken:
                raise Violation("WATCH", f"a reader of {reader.job}: {broken}") from broken
