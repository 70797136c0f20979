"""``--exit-when-idle``: when nobody needs this coordinator any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Idleness:
    """Is reached once nobody has been here for ``after_s`` seconds; never if that is None.

    ``busy`` says whether somebody is. It is asked at every :meth:`stir`, which has to follow on whatever may change
    the answer, and again when the time has passed. If it is reached, ``close`` is called that instant: nobody may come
    any more.
    """

    def __init__(self, after_s: float | None, busy: Callable[[], bool], close: Callable[[], None]) -> None:
        self._after_s = after_s
        self._busy = busy
        self._close = close
        self._timer: asyncio.TimerHandle | None = None
        self._reached = asyncio.Event()

    def stir(self) -> None:
        """Something was asked or happened: count from now on, unless somebody is here."""
        if self._after_s is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._busy():
            self._timer = asyncio.get_running_loop().call_later(self._after_s, self._reach)

    @property
    def is_reached(self) -> bool:
        return self._reached.is_set()

    async def wait(self) -> None:
        """Wait until it is reached."""
        await self._reached.wait()

    def _reach(self) -> None:
        if not self._busy():
            self._close()
            self._reached.set()
