"""What the coordinator's server logs, as lines of the transcript rather than on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from simulation.world import World


class _Teller(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.tell("=", "log", record.getMessage())


@contextmanager
def told_by(world: World) -> Iterator[None]:
    """For as long as the context lasts. Without a transcript nothing is even put into words."""
    logger, teller = logging.getLogger("rallypoint_coordinator"), _Teller(world)
    propagate, level = logger.propagate, logger.level
    logger.propagate = False
    logger.setLevel(logging.INFO if world.transcript is not None else logging.CRITICAL + 1)
    logger.addHandler(teller)
    try:
        yield
    finally:
        logger.removeHandler(teller)
        logger.propagate = propagate
        logger.setLevel(level)
