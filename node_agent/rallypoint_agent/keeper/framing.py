"""Messages between the agent and its keeper: JSON behind a four-byte big-endian length.

Both ends come from one installation, so there is no version in it.
Runs in the keeper too: standard library only, and only what is cheap to import.
"""

from __future__ import annotations

import json

# As typing has it, which the keeper does not import: that takes half a megabyte.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Message: TypeAlias = dict[str, Any]

MAX_FRAME_BYTES = 64 << 20
"""More than the environments of a hundred workers at the most that exec takes."""

_LENGTH_BYTES = 4


class FrameError(ValueError):
    """A message is too large, or what came in is none."""


def encode(message: Message) -> bytes:
    """The message as a frame. Raises FrameError if it is larger than MAX_FRAME_BYTES."""
    # Plain ASCII: so the lone surrogates of undecodable arguments and variables pass unharmed.
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    _check_size(len(body))
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class Decoder:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that ``data`` completes. Raises FrameError if the stream makes no sense."""
        self._buffer += data
        messages = []
        while (body := self._cut()) is not None:
            messages.append(_parse(body))
        return messages

    def _cut(self) -> bytearray | None:
        if len(self._buffer) < _LENGTH_BYTES:
            return None
        size = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
        _check_size(size)
        end = _LENGTH_BYTES + size
        if len(self._buffer) < end:
            return None
        body = self._buffer[_LENGTH_BYTES:end]
        del self._buffer[:end]
        return body


def _check_size(size: int) -> None:
    if size > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {size} bytes: the bound is {MAX_FRAME_BYTES}")


def _parse(body: bytearray) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a frame that is no JSON: {error}") from None
    if not isinstance(message, dict):
        raise FrameError(f"a frame that holds no object but {type(message).__name__}")
    return message
