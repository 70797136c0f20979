"""The ``rallypoint`` command: it finds its sub-commands and gets out of their way.

A sub-command is an entry point of the group ``rallypoint.commands``: a callable that takes its arguments and returns
the exit status. Only the one that is asked for is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points

GROUP = "rallypoint.commands"

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
    commands = find_commands()
    if not arguments:
        print(usage(commands), file=sys.stderr)
        return EXIT_USAGE
    name, rest = arguments[0], arguments[1:]
    if name in ("-h", "--help", "help"):
        print(usage(commands))
        return EXIT_OK
    if name == "--version":
        return version(rest)
    if name not in commands:
        print(f"rallypoint: there is no command {name!r}; 'rallypoint --help' lists them", file=sys.stderr)
        return EXIT_USAGE
    return run(commands[name], rest)


def find_commands() -> Mapping[str, EntryPoint]:
    """The installed sub-commands by name, sorted. Imports none of them."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: point for point in found}


def run(command: EntryPoint, arguments: list[str]) -> int:
    """Import a sub-command and run it."""
    try:
        function = command.load()
    except ImportError as error:
        print(f"rallypoint: {command.name} cannot be loaded ({error}); is it fully installed?", file=sys.stderr)
        return EXIT_FAILED
    status: int = function(arguments)
    return status


def usage(commands: Mapping[str, EntryPoint]) -> str:
    names = "\n".join(f"  rallypoint {name}" for name in commands)
    return f"usage: rallypoint COMMAND ...\n\n{names}\n\n'rallypoint COMMAND --help' says more."


def version(argv: Sequence[str]) -> int:
    """Print the release; what else is asked for costs an import more."""
    if argv:
        from rallypoint.commands import entry

        return entry.version(argv)
    from rallypoint import __version__

    print(f"rallypoint {__version__}")
    return EXIT_OK
