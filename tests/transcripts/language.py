"""How a transcript is written: commands at the margin, what comes of them indented below, remarks after a ``#``."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Protocol

INDENT = "    "
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


@dataclass(frozen=True)
class Command:
    """``b fail -9 after_stop=yes``: words, and options by name."""

    words: list[str]
    options: dict[str, str] = field(default_factory=dict)

    def word(self, at: int, default: str = "") -> str:
        return self.words[at] if at < len(self.words) else default

    def number(self, name: str, default: int) -> int:
        return int(self.options.get(name, default))

    def duration_ms(self, name: str, default_ms: int) -> int:
        return duration_ms(self.options[name]) if name in self.options else default_ms


class Stage(Protocol):
    """Where a story is played. ``do`` returns what came of a command, one line each."""

    def do(self, command: Command) -> list[str]: ...


class UnknownCommand(Exception):
    """The command language has no such word."""


def parse(line: str) -> Command:
    words, options = [], {}
    for token in shlex.split(line):
        name, equals, value = token.partition("=")
        if equals and re.fullmatch("[a-z-]+", name):
            options[name] = value
        else:
            words.append(token)
    return Command(words, options)


def played(story: str, stage: Stage) -> str:
    """The story with what comes of each command now, in place of what is written there."""
    lines: list[str] = []
    for line in story.splitlines():
        if line.startswith(INDENT):
            continue
        lines.append(line)
        if line.strip() and not line.startswith("#"):
            lines += [INDENT + told for told in stage.do(parse(line))]
    return "\n".join(lines) + "\n"


def duration_ms(text: str) -> int:
    """``30s``, ``500ms``, ``10m``, ``1h``."""
    found = re.fullmatch(r"(\d+)(ms|s|m|h)", text)
    if found is None:
        raise UnknownCommand(f"{text} is no duration: write 500ms, 30s, 10m or 1h")
    return int(found[1]) * _UNITS_MS[found[2]]


def seconds(ms: int) -> str:
    return f"{ms / 1_000:g} s"
