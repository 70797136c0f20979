"""``rallypoint run``: what can begin before its flags are read begins.

With ``--standalone`` that is the coordinator. It takes longer to start than all that its agent imports, and both at
once take little more than the one. So nothing is imported here that this does not need.
"""

from __future__ import annotations

import gc
from itertools import takewhile


def command(argv: list[str]) -> int:
    """Run the agent. Returns the exit status that says how it went."""
    coordinator = None
    # What is imported stays, so there is nothing to collect until the agent runs.
    gc.disable()
    try:
        if is_standalone(argv):
            from rallypoint_agent.embedded_coordinator import EmbeddedCoordinator

            coordinator = EmbeddedCoordinator()
        from rallypoint_agent import cli

        return cli.command(argv, coordinator)
    finally:
        if coordinator is not None:
            coordinator.abandon()  # it may be that nobody came to use it
        gc.enable()  # Nothing may have run.


def is_standalone(argv: list[str]) -> bool:
    """Whether ``--standalone`` is among the first arguments, all of which are flags.

    Further on it may be the script's. One that is missed here is found later, with all flags.
    """
    return "--standalone" in takewhile(lambda argument: argument.startswith("--") and argument != "--", argv)
