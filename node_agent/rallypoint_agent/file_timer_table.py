"""Which timers are armed and when they expire. Pure: what time it is, and whose timer it is, is given.

Instants are milliseconds of one clock that never goes back.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import replace

from rallypoint.values import dataclass
from rallypoint_agent.file_timer_requests import TimerRequest

TIMERS_PER_WORKER_MAX = 1024

_LONGEST_MS = 100 * 365 * 86_400_000
"""What lasts longer, or for ever, lasts so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """A request that was granted.

    ``local_rank``: the worker that the process ``request.pid`` is or descends from. ``birth``: when that process
    began, as far as it is not the worker itself; pids are given anew.
    """

    request: TimerRequest
    local_rank: int
    birth: int
    deadline_ms: int


class TimerTable:
    """Timers by process and scope: acquiring one that is held anew replaces it, as in torch.

    ``grace_ms``: how long a worker whose timer expired has to end if the client's signal is not SIGKILL.
    """

    def __init__(self, grace_ms: int) -> None:
        self._grace_ms = grace_ms
        self._timers: dict[tuple[int, str], Timer] = {}
        self._doomed: dict[int, Timer | None] = {}
        """Workers, by local rank, that an expired timer has condemned: nothing that they say counts any more. The
        timer, if there is one, is for their SIGKILL."""

    def __len__(self) -> int:
        return len(self._timers)

    @property
    def next_deadline_ms(self) -> int | None:
        return min((timer.deadline_ms for timer in self._all()), default=None)

    def acquire(self, request: TimerRequest, local_rank: int, birth: int, now_ms: int, wall_s: float) -> bool:
        """Arm it; False if the worker has too many. ``wall_s`` is now, on the clock of the request.

        From here on the time left counts, not the wall clock: that one may be set.
        """
        key = (request.pid, request.scope_id)
        if local_rank in self._doomed:
            return True
        if key not in self._timers and self._held_by(local_rank) >= TIMERS_PER_WORKER_MAX:
            return False
        left_ms = round(min((request.expiration_time - wall_s) * 1000, _LONGEST_MS))
        deadline_ms = now_ms + max(0, left_ms)
        self._timers[key] = Timer(request=request, local_rank=local_rank, birth=birth, deadline_ms=deadline_ms)
        return True

    def release(self, request: TimerRequest) -> None:
        """Disarm it. One that is not held is no error: it may have expired."""
        self._timers.pop((request.pid, request.scope_id), None)

    def drop(self, local_rank: int) -> None:
        """The worker is gone, and its timers with it."""
        self._drop_timers(local_rank)
        self._doomed.pop(local_rank, None)

    def clear(self) -> None:
        self._timers.clear()
        self._doomed.clear()

    def expire(self, now_ms: int) -> list[Timer]:
        """What has expired, the earliest first; to be called once all requests that were made have been read.

        Each is told once, and of a worker that is to be killed (by the first timer that has a signal) nothing later.
        """
        due = [timer for timer in self._all() if timer.deadline_ms <= now_ms]
        expired, killed = [], set[int]()
        for timer in sorted(due, key=lambda timer: timer.deadline_ms):
            if timer.local_rank not in killed:
                expired.append(timer)
                self.release(timer.request)
                if timer.request.signal:
                    killed.add(timer.local_rank)
                    self._condemn(timer, now_ms)
        return expired

    def _all(self) -> Iterable[Timer]:
        return (*self._timers.values(), *(timer for timer in self._doomed.values() if timer))

    def _held_by(self, local_rank: int) -> int:
        return sum(timer.local_rank == local_rank for timer in self._timers.values())

    def _drop_timers(self, local_rank: int) -> None:
        self._timers = {key: timer for key, timer in self._timers.items() if timer.local_rank != local_rank}

    def _condemn(self, timer: Timer, now_ms: int) -> None:
        """After a signal that it might survive comes SIGKILL."""
        self._drop_timers(timer.local_rank)
        follow_up = None
        if timer.request.signal != signal.SIGKILL:
            kill = timer.request._replace(signal=int(signal.SIGKILL))
            follow_up = replace(timer, request=kill, deadline_ms=now_ms + self._grace_ms)
        self._doomed[timer.local_rank] = follow_up
