"""What others plug in: a name, looked up among the entry points of a group."""

from __future__ import annotations

from typing import Any


class EntryPointError(LookupError):
    """There is no such entry point, or it cannot be loaded. Its text says which, and why."""


def load(group: str, name: str) -> Any:
    """The object behind an entry point. Raises EntryPointError."""
    # Costs an agent that has nothing plugged in a fifth of its start.
    from importlib.metadata import entry_points

    for found in entry_points(group=group, name=name):
        try:
            return found.load()
        except Exception as error:
            raise EntryPointError(f"{name} ({found.value}) cannot be loaded: {error}") from error
    others = ", ".join(sorted(entry_points(group=group).names))
    raise EntryPointError(f"no entry point of {group} is called {name}" + (f"; there are {others}" if others else ""))
