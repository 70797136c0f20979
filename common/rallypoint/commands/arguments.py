"""The flags that all commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from rallypoint.durations import timeout_ms
from rallypoint.endpoints import parse_endpoint
from rallypoint.limits import PORT_DEFAULT
from rallypoint.security.client import FLAGS as SECURITY_FLAGS

COORDINATOR_VARIABLE = "RALLYPOINT_COORDINATOR"
COORDINATOR_DEFAULT = f"127.0.0.1:{PORT_DEFAULT}"
TIMEOUT_DEFAULT = "10s"


def parser_of(
    name: str,
    description: str,
    *positional: tuple[str, str],
    needs_coordinator: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> argparse.ArgumentParser:
    """The command's parser. ``positional``: names of its arguments, in order, with their help.

    Without ``needs_coordinator`` there is one only if it is given on the command line; else it is None.
    """
    parser = argparse.ArgumentParser(prog=f"rallypoint {name}", description=description, allow_abbrev=False)
    for metavar, what in positional:
        kind = _job if metavar == "JOB" else _text
        parser.add_argument(metavar.lower(), metavar=metavar, type=kind, help=what)
    _add_coordinator(parser, environ if needs_coordinator else None)
    _add_connection(parser)
    parser.add_argument(
        "-o",
        "--output",
        choices=("text", "json"),
        default="text",
        help="json: the answer of the API, with the names of its fields (default: %(default)s)",
    )
    return parser


def add_reason(parser: argparse.ArgumentParser) -> None:
    """For what changes something."""
    parser.add_argument(
        "--reason", metavar="TEXT", type=_text, default="", help="why, for people and the journal: at most 1 KiB"
    )


def _add_coordinator(parser: argparse.ArgumentParser, environ: Mapping[str, str] | None) -> None:
    default, what = None, "ask this coordinator as well, of several the first that answers"
    if environ is not None:
        # argparse reads a default that is a text as if it had been given.
        default = environ.get(COORDINATOR_VARIABLE) or COORDINATOR_DEFAULT
        what = f"the coordinator, of several the first that answers; or {COORDINATOR_VARIABLE}"
        what = f"{what} (default: {COORDINATOR_DEFAULT})"
    parser.add_argument("--coordinator", metavar="HOST:PORT[,HOST:PORT]", type=_endpoints, default=default, help=what)


def _add_connection(parser: argparse.ArgumentParser) -> None:
    for flag in SECURITY_FLAGS:
        parser.add_argument(f"--{flag.name}", metavar="FILE", default="", help=f"{flag.help}; or {flag.variable}")
    parser.add_argument("--insecure", action="store_true", help="let a token go to another machine in plain text")
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=_seconds,
        default=TIMEOUT_DEFAULT,
        help="how long to wait for each answer (default: %(default)s)",
    )


def _endpoints(given: str) -> tuple[tuple[str, int], ...]:
    try:
        return tuple(parse_endpoint(item) for item in given.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{given!r}: {error}") from None


def _seconds(given: str) -> float:
    try:
        return timeout_ms(given) / 1000
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{given!r}: {error}") from None


def _text(given: str) -> str:
    """It has to fit into a protobuf."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it must be UTF-8") from None
    return given


def _job(given: str) -> str:
    """The API's own name of it will do as well."""
    return _text(given).removeprefix("jobs/")
