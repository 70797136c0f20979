"""The ``rallypoint`` command: it finds its sub-commands and gets out of their way.

A sub-command is a function that takes its arguments and returns the exit status. Only the one that is asked for is
imported. The table has them by name, since this package is below those that they are in. (Asking the metadata of all
that is installed for entry points took as long as the import of gRPC.)
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Mapping, Sequence

_ENTRY = "rallypoint.commands.entry"

COMMANDS = {
    "cancel": f"{_ENTRY}:cancel",
    "cluster": f"{_ENTRY}:cluster",
    "coordinator": "rallypoint_coordinator.cli:command",
    "drain": f"{_ENTRY}:drain",
    "events": f"{_ENTRY}:events",
    "hold": f"{_ENTRY}:hold",
    "jobs": f"{_ENTRY}:jobs",
    "nodes": f"{_ENTRY}:nodes",
    "release": f"{_ENTRY}:release",
    "restart": f"{_ENTRY}:restart",
    "run": "rallypoint_agent.run_command:command",
    "status": f"{_ENTRY}:status",
    "token": "rallypoint_coordinator.token_cli:command",
    "update": f"{_ENTRY}:update",
    "version": "rallypoint.cli:version",
}
"""Module and function by name."""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``rallypoint ARGV``; the process's own arguments by default. Returns the exit status."""
    try:
        return _main(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(usage(COMMANDS), file=sys.stderr)
        return EXIT_USAGE
    name, rest = arguments[0], arguments[1:]
    if name in ("-h", "--help", "help"):
        print(usage(COMMANDS))
        return EXIT_OK
    if name == "--version":
        return version(rest)
    if name not in COMMANDS:
        print(f"rallypoint: there is no command {name!r}; 'rallypoint --help' lists them", file=sys.stderr)
        return EXIT_USAGE
    return run(name, rest)


def run(name: str, arguments: list[str]) -> int:
    """Import a sub-command and run it."""
    module, _, function = COMMANDS[name].partition(":")
    # What is imported stays: there is nothing to collect meanwhile, nor to look at again later.
    gc.disable()
    try:
        command = getattr(importlib.import_module(module), function)
    except ImportError as error:
        print(f"rallypoint: {name} cannot be loaded ({error}); is it fully installed?", file=sys.stderr)
        return EXIT_FAILED
    finally:
        gc.freeze()
        gc.enable()
    status: int = command(arguments)
    return status


def usage(commands: Mapping[str, str]) -> str:
    names = "\n".join(f"  rallypoint {name}" for name in sorted(commands))
    return f"usage: rallypoint COMMAND ...\n\n{names}\n\n'rallypoint COMMAND --help' says more."


def version(argv: Sequence[str]) -> int:
    """Print the release; what else is asked for costs an import more."""
    if argv:
        from rallypoint.commands import entry

        return entry.version(argv)
    from rallypoint import __version__

    print(f"rallypoint {__version__}")
    return EXIT_OK
