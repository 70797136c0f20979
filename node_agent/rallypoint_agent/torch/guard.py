"""A process beside torchrun that ends its workers when it cannot: at the end of the lease, and after its death.

``python -S -I guard.py MARK FOLDER``, FOLDER being where the package is. It reads a JSON object a line: ``kill_at_ms``,
when to kill, on CLOCK_BOOTTIME (0: not); ``obituary``, what to run once torchrun is dead and no worker is alive;
``over``: none of that is needed any more. The end of its input without that is torchrun's death.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time

KILL_TIMEOUT_S = 5.0


def main(mark: str, folder: str) -> None:
    sys.path.insert(0, folder)
    os.setsid()  # What a terminal sends to torchrun's group is not for us.
    Guard(mark).watch()


class Guard:
    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._kill_at_ms = 0
        self._obituary: list[str] = []
        self._over = False
        self._pending = b""

    def watch(self) -> None:
        while self._read():
            if self._kill_at_ms and _boot_ms() >= self._kill_at_ms:
                self._kill()
        if not self._over:
            while self._kill():
                pass
            if self._obituary:
                os.execv(self._obituary[0], self._obituary)

    def _read(self) -> bool:
        """Wait for the next words, or until it is time to kill. False at the end."""
        left_s = max(self._kill_at_ms - _boot_ms(), 0) / 1000 if self._kill_at_ms else None
        if not select.select([0], [], [], left_s)[0]:
            return True
        data = os.read(0, 1 << 16)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._hear(json.loads(line))
        return bool(data)

    def _hear(self, words: dict[str, object]) -> None:
        kill_at_ms, obituary = words.get("kill_at_ms"), words.get("obituary")
        if isinstance(kill_at_ms, int):
            self._kill_at_ms = kill_at_ms
        if isinstance(obituary, list):
            self._obituary = obituary
        self._over = self._over or "over" in words

    def _kill(self) -> list[int]:
        """Those that are left."""
        from rallypoint_agent.torch.marked import kill_marked

        self._kill_at_ms = 0
        return kill_marked(self._mark, KILL_TIMEOUT_S)


def _boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


if __name__ == "__main__":
    main(*sys.argv[1:])
