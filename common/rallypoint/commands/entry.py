"""The entry points of the commands. Each takes its arguments and returns one of :mod:`~rallypoint.commands.exits`."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rallypoint import __version__
from rallypoint.commands import exits
from rallypoint.commands.arguments import (
    add_changes,
    add_hold_time,
    add_reason,
    add_states,
    missing_changes,
    parser_of,
)

if TYPE_CHECKING:
    from rallypoint.commands.session import Session

_JOB = ("JOB", "the job's name (--rdzv-id)")
_NODE = ("NODE", "the node's name, as rallypoint nodes JOB lists it")


def jobs(argv: Sequence[str]) -> int:
    """List jobs."""

    def act(session: Session) -> None:
        from rallypoint.commands.jobs import show_jobs

        show_jobs(session)

    parser = parser_of("jobs", "List all jobs, or those in some states, by name.")
    add_states(parser)
    return run(parser, argv, act)


def status(argv: Sequence[str]) -> int:
    """Say how a job is."""

    def act(session: Session) -> None:
        from rallypoint.commands.status import show_status, watch_status

        (watch_status if session.arguments.watch else show_status)(session)

    description = "Say how a job is: its state and why, its round, its restarts, its nodes, and its last failure."
    parser = parser_of("status", description, _JOB)
    parser.add_argument(
        "--watch", "-w", action="store_true", help="again after each decision, until the job is decided"
    )
    return run(parser, argv, act)


def events(argv: Sequence[str]) -> int:
    """List what was decided about a job."""

    def act(session: Session) -> None:
        from rallypoint.commands.events import show_events

        show_events(session)

    description = "List what was decided about a job, oldest first, as far as the coordinator keeps it."
    parser = parser_of("events", description, _JOB)
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what is decided, until the job is")
    return run(parser, argv, act)


def nodes(argv: Sequence[str]) -> int:
    """List a job's nodes."""

    def act(session: Session) -> None:
        from rallypoint.commands.nodes import show_nodes

        show_nodes(session)

    description = "List a job's nodes, by name: what they are to the job, their ranks, and when they were last heard."
    return run(parser_of("nodes", description, _JOB), argv, act)


def cluster(argv: Sequence[str]) -> int:
    """Say how the coordinator is."""

    def act(session: Session) -> None:
        from rallypoint.commands.cluster import show_cluster

        show_cluster(session)

    description = "Say who the coordinator is, whether it serves, how much it holds, and what it allows."
    return run(parser_of("cluster", description), argv, act)


def version(argv: Sequence[str]) -> int:
    """Print the release; with --coordinator also that coordinator's."""

    def act(session: Session) -> None:
        from rallypoint.commands.cluster import show_versions

        show_versions(session)

    description = "Print the release that is installed here and, with --coordinator, the coordinator's."
    parser = parser_of("version", description, needs_coordinator=False)
    arguments = _parse(parser, argv)
    if isinstance(arguments, int):
        return arguments
    if arguments.coordinator is not None:
        return _ask(parser.prog, arguments, act)
    as_json = arguments.output == "json"
    print(json.dumps({"client_version": __version__}, indent=2) if as_json else f"rallypoint {__version__}")
    return exits.OK


def cancel(argv: Sequence[str]) -> int:
    """End a job."""

    def act(session: Session) -> None:
        from rallypoint.commands.requests import cancel

        cancel(session)

    parser = parser_of("cancel", "End a job: its workers get SIGTERM and their grace. It may be repeated.", _JOB)
    add_reason(parser)
    return run(parser, argv, act)


def restart(argv: Sequence[str]) -> int:
    """End the round that runs and form the next one."""

    def act(session: Session) -> None:
        from rallypoint.commands.requests import restart

        restart(session)

    description = "Stop the workers of the round that runs, and form the next round. No restart is spent."
    parser = parser_of("restart", description, _JOB)
    add_reason(parser)
    return run(parser, argv, act)


def drain(argv: Sequence[str]) -> int:
    """Have a node leave its job."""

    def act(session: Session) -> None:
        from rallypoint.commands.requests import drain

        drain(session)

    description = "Have a node leave its job, which goes on without it. No restart is spent. It may be repeated."
    parser = parser_of("drain", description, _JOB, _NODE)
    add_reason(parser)
    return run(parser, argv, act)


def update(argv: Sequence[str]) -> int:
    """Change a live job."""

    def act(session: Session) -> None:
        from rallypoint.commands.changes import update

        update(session)

    description = (
        "Change a live job: its budget of restarts, how many nodes a round has, its labels. What runs goes on: the"
        " values count for what is decided next. Agents keep their flags. It may be repeated."
    )
    parser = parser_of("update", description, _JOB)
    add_changes(parser)
    add_reason(parser)
    return run(parser, argv, act, missing_changes)


def hold(argv: Sequence[str]) -> int:
    """Have a job form no round."""

    def act(session: Session) -> None:
        from rallypoint.commands.changes import hold

        hold(session)

    description = (
        "Hold a job: what runs goes on, and no other round is formed until it is released. It may be repeated."
    )
    parser = parser_of("hold", description, _JOB)
    add_hold_time(parser)
    add_reason(parser)
    return run(parser, argv, act)


def release(argv: Sequence[str]) -> int:
    """End the hold of a job."""

    def act(session: Session) -> None:
        from rallypoint.commands.changes import release

        release(session)

    parser = parser_of("release", "End the hold of a job: rounds are formed again. It may be repeated.", _JOB)
    add_reason(parser)
    return run(parser, argv, act)


def run(
    parser: ArgumentParser,
    argv: Sequence[str],
    act: Callable[[Session], None],
    missing: Callable[[Namespace], str] = lambda arguments: "",
) -> int:
    """Read the arguments, and act on them.

    ``missing`` says what arguments that are right one by one lack together; "" if that is nothing.
    """
    arguments = _parse(parser, argv, missing)
    return arguments if isinstance(arguments, int) else _ask(parser.prog, arguments, act)


def _parse(
    parser: ArgumentParser, argv: Sequence[str], missing: Callable[[Namespace], str] = lambda arguments: ""
) -> Namespace | int:
    """The arguments; or the exit status, if they are wrong or ask for help."""
    try:
        arguments = parser.parse_args(argv)
        if lacks := missing(arguments):
            parser.error(lacks)
        return arguments
    except SystemExit as stop:  # argparse has printed what there is to say
        return stop.code if isinstance(stop.code, int) else exits.USAGE


def _ask(prog: str, arguments: Namespace, act: Callable[[Session], None]) -> int:
    """Act. Only now is gRPC imported, which may write lines of its own unless told not to."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from rallypoint.commands.session import run_session

    return run_session(prog, arguments, act)
