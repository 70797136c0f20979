"""The peer: N clients of torch's c10d rendezvous, a process each, against one TCPStore in a process of its own.

    python benchmarks/scoreboard/clients/c10d.py N PATIENCE

Each client is a DynamicRendezvousHandler as torchrun makes one: C10dRendezvousBackend, default timeouts, and as many
nodes at least and at most as there are clients, so that nobody waits for a last call. Timed is ``next_rendezvous``,
called by all at one instant, until the last call has returned: the first time, and again once all have their result, as
agents do when a worker has failed. What comes before is not timed: torch's import, the connection, the handler.

It has to be run as a file. Torch names each of its steps with ``inspect.stack()``, which goes through all modules there
are for a frame that is of no file, and ``python -m`` begins with two: that made it ten times slower, and end never.

Whoever has not met after PATIENCE seconds may never: who takes longer than 15 s from one look to the next is taken for
dead by the others. That time then counts, for this and for what would have come after it.

Prints a :class:`Result` as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # else numpy, which torch imports, begins a thread, and nobody could be forked

from torch.distributed import TCPStore
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler

from scoreboard.clients.crowd import REHEARSALS, CrowdLate, crowd

HOST = "127.0.0.1"
CONNECTS_S = 120.0
"""For what is not timed."""


@dataclass
class Result:
    """``first`` and ``again``: seconds, one of each. The last two are of all clients, in both, unless they gave up."""

    first: list[float]
    again: list[float]
    gave_up: bool = False
    compare_and_sets: int = 0
    sent_bytes: int = 0


class CountingBackend:
    """A backend, and what is written through it: each time the whole state, whether it was in time or not."""

    def __init__(self, backend: C10dRendezvousBackend) -> None:
        self._backend = backend
        self.name, self.get_state = backend.name, backend.get_state
        self.compare_and_sets = 0
        self.sent_bytes = 0

    def set_state(self, state: bytes, token: Any = None) -> Any:
        self.compare_and_sets += 1
        self.sent_bytes += len(state)
        return self._backend.set_state(state, token)


class C10dClient:
    def __init__(self, number: int) -> None:
        self._number = number

    def act(self, order: str, *details: Any) -> object:
        return getattr(self, order)(*details)

    def rehearse(self, port: int, rehearsal: int) -> None:
        """Do it all once, in a rendezvous of its own."""
        self.connect(port, f"alone-{self._number}-{rehearsal}", 1)
        self.meet()
        self.meet()
        self.part()

    def connect(self, port: int, run_id: str, count: int) -> None:
        self._count = count
        store = TCPStore(HOST, port, is_master=False)
        self._backend = CountingBackend(C10dRendezvousBackend(store, run_id))
        self._handler = DynamicRendezvousHandler.from_backend(
            run_id, store, self._backend, count, count, local_addr=HOST
        )

    def meet(self) -> None:
        world_size = self._handler.next_rendezvous().world_size
        assert world_size == self._count, f"{world_size} met"

    def part(self) -> tuple[int, int]:
        """End the heartbeats; what was written so far."""
        self._handler._stop_heartbeats()
        return self._backend.compare_and_sets, self._backend.sent_bytes


def measure(count: int, patience_s: float) -> Result:
    with crowd(count, C10dClient) as clients:
        store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
        for rehearsal in range(REHEARSALS):
            clients.all_do("rehearse", store.port, rehearsal, timeout_s=CONNECTS_S)
        clients.all_do("connect", store.port, "job", count, timeout_s=CONNECTS_S)
        result = Result([patience_s], [patience_s])
        try:
            result.first = [max(clients.time("meet", timeout_s=patience_s))]
            result.again = [max(clients.time("meet", timeout_s=patience_s))]
        except CrowdLate:
            result.gave_up = True
        else:
            written = clients.all_do("part", timeout_s=CONNECTS_S)
            result.compare_and_sets, result.sent_bytes = map(sum, zip(*written, strict=True))
    return result


def main(argv: Sequence[str]) -> None:
    print(json.dumps(asdict(measure(int(argv[0]), float(argv[1])))))


if __name__ == "__main__":
    main(sys.argv[1:])
