"""Where answers go: standard output, as text or as JSON, in colours if a person is looking."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from io import StringIO, TextIOWrapper
from typing import Any, TextIO

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

Paint = Callable[[str], str]
"""A word as it is shown: in a colour, or as it is."""

_GREEN, _YELLOW, _RED = "32", "33", "31"

_COLOURS: Mapping[str, str] = {
    **dict.fromkeys(("RUNNING", "SUCCEEDED", "PARTICIPANT", "SERVING"), _GREEN),
    **dict.fromkeys(("GATHERING", "STOPPING", "RECOVERING", "CANCELLED", "STANDBY", "SHUTTING_DOWN"), _YELLOW),
    **dict.fromkeys(("FAILED", "GONE", "LOST", "QUARANTINED", "FENCED"), _RED),
}


_CLEAR = "\x1b[H\x1b[2J"


def in_colour(word: str) -> str:
    """A state's name in its colour; anything else as it is."""
    colour = _COLOURS.get(word)
    return f"\x1b[{colour}m{word}\x1b[0m" if colour else word


def plain(word: str) -> str:
    return word


def is_screen(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a person looks at a terminal that knows more than letters."""
    return stream.isatty() and environ.get("TERM") != "dumb"


def wants_colour(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a person looks, and has not said otherwise (https://no-color.org)."""
    return is_screen(stream, environ) and not environ.get("NO_COLOR")


class OutputError(Exception):
    """The answer cannot be shown: why."""


class Output:
    """What is shown is complete when :meth:`show` returns. Raises OutputError, and BrokenPipeError if nobody reads."""

    def __init__(self, stream: TextIO, *, as_json: bool = False, paint: Paint = plain) -> None:
        self._stream = stream
        self._as_json = as_json
        self._paint = paint

    @classmethod
    def of(cls, stream: TextIO | None, *, as_json: bool) -> Output:
        """``stream``: sys.stdout, which is None if we were started without one."""
        if stream is None:
            return cls(StringIO())
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale may not know all letters
        return cls(stream, as_json=as_json, paint=in_colour if wants_colour(stream) else plain)

    def show(self, messages: Sequence[Message], text: Callable[[Paint], str]) -> None:
        """As JSON the fields of all messages in one object, else the text."""
        fields: dict[str, Any] = {}
        if self._as_json:
            for message in messages:
                fields.update(json_of(message))
        self.show_fields(fields, text)

    def show_fields(self, fields: Mapping[str, Any], text: Callable[[Paint], str]) -> None:
        """What is no message, or not that alone."""
        self._write(json.dumps(fields, indent=2) if self._as_json else text(self._paint))

    def show_next(self, message: Message, text: Callable[[Paint], str]) -> None:
        """One of several that come as time goes by: as JSON each on a line of its own."""
        self._write(json.dumps(json_of(message)) if self._as_json else text(self._paint))

    @property
    def redraws(self) -> bool:
        """Whether what is shown next takes the place of what was shown: a person looks at a terminal."""
        return is_screen(self._stream) and not self._as_json

    def redraw(self, text: Callable[[Paint], str]) -> None:
        self._write(f"{_CLEAR}{text(self._paint)}")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def json_of(message: Message) -> dict[str, Any]:
    """The message as protobuf's JSON has it, with the proto's names; zeros and empty lists are shown as well."""
    fields: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return fields


def give_up_stdout() -> None:
    """Nobody reads it, or it takes nothing: else Python would try once more, and say so."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
