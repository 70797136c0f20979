"""The flags that all commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from rallypoint.durations import timeout_ms
from rallypoint.endpoints import parse_endpoint
from rallypoint.limits import HOLD_MS_MAX, INT32_MAX, PORT_DEFAULT
from rallypoint.model import JobState
from rallypoint.security.client import FLAGS as SECURITY_FLAGS

COORDINATOR_VARIABLE = "RALLYPOINT_COORDINATOR"
COORDINATOR_DEFAULT = f"127.0.0.1:{PORT_DEFAULT}"
TIMEOUT_DEFAULT = "10s"

_STATES = ", ".join(state.lower() for state in JobState)


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


def add_states(parser: argparse.ArgumentParser) -> None:
    """Which jobs are meant."""
    parser.add_argument(
        "--state",
        dest="states",
        metavar="STATE[,STATE]",
        type=_states,
        action="extend",
        default=[],
        help=f"only jobs in these states; may be repeated ({_STATES})",
    )


def add_changes(parser: argparse.ArgumentParser) -> None:
    """What can be changed of a job."""
    parser.add_argument(
        "--max-restarts",
        metavar="N",
        type=_count,
        help="restarts that it may spend in all, those that are spent included",
    )
    parser.add_argument("--nnodes", metavar="MIN:MAX", type=_node_range, help="nodes that a round has; N for N:N")
    parser.add_argument(
        "--label",
        metavar="KEY=VALUE|KEY-",
        type=_label,
        action="append",
        default=[],
        help="give it a label, or take one away; may be repeated",
    )
    parser.add_argument(
        "--etag", metavar="E", type=_text, default="", help="only if the job's etag is still this one (see status)"
    )


def missing_changes(arguments: argparse.Namespace) -> str:
    """What is wrong with an update that changes nothing."""
    if arguments.max_restarts is None and arguments.nnodes is None and not arguments.label:
        return "nothing is to be changed: give --max-restarts, --nnodes or --label"
    return ""


def add_hold_time(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for",
        dest="hold_ms",
        metavar="TIME",
        type=_hold_ms,
        help="after which it is released by itself, 30 days at most (default: 24h)",
    )


def _states(given: str) -> list[JobState]:
    try:
        return [JobState(name.strip().upper()) for name in given.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r}: each must be one of {_STATES}") from None


def _count(given: str) -> int:
    # int() refuses a text of thousands of digits, in words of its own.
    digits = given.lstrip("0") or "0"
    if not given.isascii() or not given.isdecimal() or len(digits) > 10 or int(digits) > INT32_MAX:
        raise argparse.ArgumentTypeError(f"{given!r}: it must be a number, 0 to {INT32_MAX:,}")
    return int(digits)


def _node_range(given: str) -> tuple[int, int]:
    """As torchrun has it."""
    low, colon, high = given.partition(":")
    try:
        return _count(low), _count(high if colon else low)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{given!r}: it must be MIN:MAX, or one number for both") from None


def _label(given: str) -> tuple[str, str | None]:
    """A label and its value; None: it is to be taken away."""
    key, equals, value = _text(given).partition("=")
    if equals and key:
        return key, value
    if given.endswith("-") and len(given) > 1:
        return given[:-1], None
    raise argparse.ArgumentTypeError(f"{given!r}: it must be KEY=VALUE, or KEY- to take it away")


def _hold_ms(given: str) -> int:
    try:
        held_ms = timeout_ms(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{given!r}: {error}") from None
    if held_ms > HOLD_MS_MAX:
        raise argparse.ArgumentTypeError(f"{given!r}: it must be at most 30 days, which is 720h")
    return held_ms


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
