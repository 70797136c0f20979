"""An asyncio event loop on simulated time: what the real driver runs on. Nothing in it waits for the real clock.

It has what the driver and its parts use, and no more: callbacks, timers, futures, tasks, and a thread pool that is
none. A process that dies leaves its loop behind: nothing of it runs any more, and :meth:`VirtualLoop.bury` unwinds it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, Unpack

from simulation.world import Alarm, Clock, World

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualLoop(asyncio.AbstractEventLoop):
    """Time is that of ``clock``. What fails in a task or a callback ends the whole run."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.is_dead = False
        self._world = world
        self._clock = clock
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[asyncio.TimerHandle] = []
        self._alarm = Alarm(world, clock, self._ring)
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._is_scheduled = False

    # --- what the simulation does with it

    def bury(self) -> None:
        """After a death: unwind what was suspended. Whoever is called by it must know that nothing counts any more."""
        assert self.is_dead
        while self._tasks:
            for task in list(self._tasks):
                task.cancel()
            self._drain()

    async def sleep_ms(self, delay_ms: int) -> None:
        """In virtual time, not on anybody's clock."""
        woken = self.create_future()
        self._world.after(delay_ms, partial(_wake, woken))
        await woken

    # --- what asyncio asks of a loop

    def time(self) -> float:
        return self._clock.now_ms() / 1000

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._is_ready(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, timer)
        self._set_alarm()
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, T], **how: Any) -> asyncio.Task[T]:  # type: ignore[override]
        task = asyncio.Task(coro, loop=self, **how)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """At once: what is given to a thread is a computation. One that fails is a bug."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            self._world.accuse(error)
            future.set_exception(error)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._world.accuse(context.get("exception") or RuntimeError(context["message"]))

    # --- running

    def _is_ready(self, handle: asyncio.Handle) -> None:
        self._ready.append(handle)
        if not self._is_scheduled and not self.is_dead:
            self._is_scheduled = True
            self._world.after(0, self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        if not self.is_dead:
            self._drain()

    def _drain(self) -> None:
        asyncio._set_running_loop(self)
        try:
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(None)

    def _ring(self) -> None:
        if self.is_dead:
            return
        while self._timers and (self._timers[0].cancelled() or self._timers[0].when() <= self.time()):
            timer = heapq.heappop(self._timers)
            if not timer.cancelled():
                self._is_ready(timer)
        self._set_alarm()

    def _set_alarm(self) -> None:
        while self._timers and self._timers[0].cancelled():
            heapq.heappop(self._timers)
        self._alarm.set(round(self._timers[0].when() * 1000) if self._timers else None)

    def _done(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None and not self.is_dead:
            self._world.accuse(error)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of what has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("it would have to wait")
