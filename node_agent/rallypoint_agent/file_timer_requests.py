"""What workers write into the watchdog's pipe, in torch's format: one JSON object per line.

    {"version": 1, "pid": 21954, "scope_id": "step", "expiration_time": 1234567890.1, "signal": 9}

Pure. Anybody may write there, so nothing that comes in is trusted, and nothing is an error of ours.
"""

from __future__ import annotations

import json
import math
import select
import signal
from typing import NamedTuple

MAX_LINE_BYTES = select.PIPE_BUF
"""The kernel writes so much in one piece. A client of torch's may write a newline beyond it."""

_SALVAGES = 4
_LAST_PID = 2**31 - 1


class TimerRequest(NamedTuple):
    """``expiration_time`` is in seconds since the epoch; if it is negative, the timer is released.

    ``signal`` 0: what expires is told, and nobody is killed.
    """

    pid: int
    scope_id: str
    expiration_time: float
    signal: int

    @property
    def is_release(self) -> bool:
        return self.expiration_time < 0


class BadRequestError(ValueError):
    """A line is no request; the text says why."""


class LineCutter:
    """Cuts what is read into lines. Of a line that is too long it keeps the end, where a whole request may be."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their newlines."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-MAX_LINE_BYTES:]
        return [line[-MAX_LINE_BYTES:] for line in lines if line]

    def clear(self) -> None:
        self._rest = b""


def parse_request(line: bytes) -> TimerRequest:
    """The request in a line. Raises BadRequestError.

    The writer of a line may have died in the middle of it, and the next one's request then follows on the same
    line: it must not be lost, as it may be the release that saves its writer's life.
    """
    try:
        return _parse(line)
    except BadRequestError as error:
        request = _salvaged(line)
        if request is None:
            raise error
        return request


def _salvaged(line: bytes) -> TimerRequest | None:
    start = len(line)
    for _ in range(_SALVAGES):
        start = line.rfind(b"{", 1, start)
        if start < 0:
            break
        try:
            return _parse(line[start:])
        except BadRequestError:
            continue
    return None


def _parse(line: bytes) -> TimerRequest:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRequestError("it is no JSON") from None
    if not isinstance(data, dict):
        raise BadRequestError("it is no JSON object")
    return TimerRequest(
        pid=_whole(data, "pid", 1, _LAST_PID),
        scope_id=_text(data, "scope_id"),
        expiration_time=_seconds(data, "expiration_time"),
        # torch: a signal that is not positive kills nobody.
        signal=max(0, _whole(data, "signal", -_LAST_PID, signal.SIGRTMAX)),
    )


def _whole(data: dict[str, object], name: str, least: int, most: int) -> int:
    value = data.get(name)
    if type(value) is not int or not least <= value <= most:
        raise BadRequestError(f"its {name} is no whole number from {least} to {most}")
    return value


def _text(data: dict[str, object], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise BadRequestError(f"its {name} is no text")
    # JSON can spell half a surrogate pair, which no message of ours could carry.
    return value.encode(errors="backslashreplace").decode()


def _seconds(data: dict[str, object], name: str) -> float:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequestError(f"its {name} is no number")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if math.isnan(seconds):
        raise BadRequestError(f"its {name} is not a number")
    return seconds
