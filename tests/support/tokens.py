"""Token files of the test's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rallypoint_coordinator.security.policy import Role
from rallypoint_coordinator.security.tokens import Grant, digest, line_of, token_of


def token(number: int) -> str:
    """The same number is the same token."""
    return token_of(bytes([number]) * 32)


def token_line(grant: Grant, number: int) -> str:
    return line_of(grant, f"sha256:{digest(token(number))}")


def certificate_line(grant: Grant, name: str) -> str:
    return line_of(grant, f"cert:{name}")


def grant(name: str, *roles: Role, job: str | None = None) -> Grant:
    return Grant(name, frozenset(roles), job)


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    """As a rotation does: the new file is renamed over the old one."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text("".join(f"{line}\n" for line in lines))
    fresh.replace(path)
    return path
