"""What workers say: one message each, on a socket whose path they have in BIRTHS. Nothing is polled for."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any


class Inbox:
    """A context; the path works across network namespaces."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "births")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)

    def __enter__(self) -> Inbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def env(self) -> dict[str, str]:
        """For the workers, and so for who launches them."""
        return {"BIRTHS": self._path}

    def receive(self, within_s: float) -> dict[str, Any] | None:
        """The next message; None if none comes in time."""
        self._socket.settimeout(max(within_s, 0))
        try:
            message: dict[str, Any] = json.loads(self._socket.recv(1 << 16))
        except (TimeoutError, BlockingIOError):
            return None
        return message
