"""One gRPC call on a TCP connection of its own, thin enough that one process has ten thousand of them on one core.

A client of gRPC's own costs as much as the server that is to be measured. This one speaks what a call needs of HTTP/2
(RFC 9113) and of gRPC: it reads no headers, so of a call that the server ends it knows that it ended, not why.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
_STREAM = 1
"""Our one stream; number 0 is the connection."""

_FRAME_HEAD = 9
_MESSAGE_HEAD = 5
_WINDOW = 65_535
"""What either side may send before it hears more, unless told otherwise."""
_WINDOW_MAX = 2**31 - 1
_SETTING_ENABLE_PUSH, _SETTING_INITIAL_WINDOW = 2, 4


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


def _settings(values: dict[int, int]) -> bytes:
    return b"".join(struct.pack(">HI", setting, value) for setting, value in values.items())


def _literal(name: int | str, value: str) -> bytes:
    """A header of the static table, or of a name of its own, that nobody has to remember (RFC 7541, 6.2.2)."""
    head = bytes([name]) if isinstance(name, int) else b"\0" + _text(name)
    return head + _text(value)


def _text(text: str) -> bytes:
    assert len(text) < 127, text
    return bytes([len(text)]) + text.encode("ascii")


_GREETING = b"".join(
    (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        _frame(_SETTINGS, 0, 0, _settings({_SETTING_ENABLE_PUSH: 0, _SETTING_INITIAL_WINDOW: _WINDOW_MAX})),
        _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW_MAX - _WINDOW)),
    )
)
"""All that a client says on a new connection. It lets the server send without end."""


def opening(path: str, authority: str) -> bytes:
    """All that a client says of a call before its first message."""
    post, http = b"\x83", b"\x86"
    headers = post + http + _literal(4, path) + _literal(1, authority)
    # content-type has number 31 of the static table, which does not fit into the four bits of a literal.
    headers += b"\x0f\x10" + _text("application/grpc") + _literal("te", "trailers")
    return _frame(_HEADERS, _END_HEADERS, _STREAM, headers)


class GrpcStream(asyncio.Protocol):
    """``on_message`` gets each message as it comes; ``on_end``, once, the trailers undecoded, or b"" without any.

    Made by ``loop.create_connection``. The call begins with the first message that is sent.
    """

    __slots__ = (
        "_credit",
        "_ended",
        "_message",
        "_on_end",
        "_on_message",
        "_opening",
        "_rest",
        "_transport",
        "_unsent",
        "_window",
    )

    def __init__(self, opening: bytes, on_message: Callable[[bytes], None], on_end: Callable[[bytes], None]) -> None:
        self._opening = opening
        self._on_message = on_message
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        """Of a frame that has not come whole."""
        self._message = b""
        """Of a message likewise."""
        self._credit = {0: _WINDOW, _STREAM: _WINDOW}
        """What may be sent still."""
        self._window = _WINDOW
        """What the server lets a stream begin with."""
        self._unsent: deque[bytes] = deque()
        self._ended = False

    # --- For its owner

    def send(self, message: bytes) -> None:
        """Never waits: what the server has no room for follows later."""
        self._write(self._opening)
        self._opening = b""
        self._unsent.append(b"\0" + struct.pack(">I", len(message)) + message)
        self._flush()

    def abort(self) -> None:
        """End the connection without a word."""
        self._end(b"")

    # --- For asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_GREETING)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(b"")

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        start = 0
        while len(data) - start >= _FRAME_HEAD and not self._ended:
            length = data[start] << 16 | data[start + 1] << 8 | data[start + 2]
            end = start + _FRAME_HEAD + length
            if end > len(data):
                break
            stream = int.from_bytes(data[start + 5 : start + 9])
            self._take(data[start + 3], data[start + 4], stream, data[start + _FRAME_HEAD : end])
            start = end
        self._rest = data[start:]

    # --- Frames

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._take_data(payload)
        elif kind == _WINDOW_UPDATE:
            self._credit[stream] += int.from_bytes(payload)
            self._flush()
        elif kind == _SETTINGS and not flags & _ACK:
            self._take_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        elif kind == _RST_STREAM or (kind == _HEADERS and flags & _END_STREAM):
            self._end(payload)

    def _take_data(self, payload: bytes) -> None:
        data = self._message + payload
        start = 0
        while len(data) - start >= _MESSAGE_HEAD:
            end = start + _MESSAGE_HEAD + int.from_bytes(data[start + 1 : start + _MESSAGE_HEAD])
            if end > len(data):
                break
            self._on_message(data[start + _MESSAGE_HEAD : end])
            start = end
        self._message = data[start:]

    def _take_settings(self, payload: bytes) -> None:
        for setting, value in struct.iter_unpack(">HI", payload):
            if setting == _SETTING_INITIAL_WINDOW:
                self._credit[_STREAM] += value - self._window
                self._window = value
        self._write(_frame(_SETTINGS, _ACK, 0, b""))
        self._flush()

    def _flush(self) -> None:
        while self._unsent and len(self._unsent[0]) <= min(self._credit.values()):
            data = self._unsent.popleft()
            self._credit[0] -= len(data)
            self._credit[_STREAM] -= len(data)
            self._write(_frame(_DATA, 0, _STREAM, data))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._ended:
            self._transport.write(data)

    def _end(self, trailers: bytes) -> None:
        if self._ended:
            return
        self._ended = True
        if self._transport is not None:
            self._transport.abort()
        self._on_end(trailers)
