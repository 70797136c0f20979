"""Virtual time: what is to be done, in the order in which it is due."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

Action = Callable[[], object]


class Timeline:
    """``now_ms`` moves on only from one action to the next. What is due at the same time is done in the order asked."""

    def __init__(self) -> None:
        self.now_ms = 0
        self._times: list[int] = []
        self._due: dict[int, deque[Action]] = {}

    def at(self, at_ms: int, action: Action) -> None:
        at_ms = max(at_ms, self.now_ms)
        actions = self._due.get(at_ms)
        if actions is None:
            self._due[at_ms] = actions = deque()
            heapq.heappush(self._times, at_ms)
        actions.append(action)

    def after(self, delay_ms: int, action: Action) -> None:
        self.at(self.now_ms + delay_ms, action)

    def run_until(self, is_over: Callable[[], bool]) -> None:
        """Do what is due next until the condition holds; it is looked at when the time moves on."""
        while not is_over():
            at_ms = heapq.heappop(self._times)
            self.now_ms = at_ms
            actions = self._due[at_ms]
            while actions:
                actions.popleft()()
            del self._due[at_ms]

    def run_for(self, duration_ms: int) -> None:
        end_ms = self.now_ms + duration_ms
        self.at(end_ms, lambda: None)
        self.run_until(lambda: self.now_ms >= end_ms)
