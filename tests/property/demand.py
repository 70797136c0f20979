"""What fails when an invariant of the design does not hold."""

from __future__ import annotations


class Broken(AssertionError):
    """``invariant`` is the design's id."""

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(f"{invariant}: {message}")
        self.invariant = invariant


def demand(condition: object, invariant: str, message: str) -> None:
    if not condition:
        raise Broken(invariant, message)
