"""``rallypoint token``: make a token, and the line of the token file that says what it is good for."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from rallypoint_coordinator.security.policy import Role
from rallypoint_coordinator.security.tokens import (
    SECRET_BYTES,
    Grant,
    TokenFileError,
    digest,
    line_of,
    parse_roles,
    token_of,
)

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2

SAYING = "the token, which is shown this once, and the line for the coordinator's --token-file:"

EXISTS = (
    "there is a file already, whose token may be in use: it is left as it is; choose another name, or remove it first"
)


def command(argv: Sequence[str]) -> int:
    """Print a fresh token and its line. Exit status: 0, 1 if --out cannot be written, 2 for wrong usage."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed what there is to say
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    token = token_of(secrets.token_bytes(SECRET_BYTES))
    try:
        grant = Grant(arguments.name or _name(arguments), parse_roles(arguments.role), arguments.job)
        line = line_of(grant, f"sha256:{digest(token)}")
    except TokenFileError as error:
        return _fail(str(error), EXIT_USAGE)
    if arguments.out is None:
        print(SAYING, file=sys.stderr)
        print(token)
    else:
        try:
            _write(arguments.out, token)
        except FileExistsError:
            return _fail(f"--out {arguments.out}: {EXISTS}", EXIT_FAILED)
        except OSError as error:
            return _fail(f"--out {arguments.out}: {error.strerror}", EXIT_FAILED)
    print(line)
    return EXIT_OK


def _name(arguments: argparse.Namespace) -> str:
    return "-".join(filter(None, (arguments.job, arguments.role.replace(",", "-"))))[:64]


def _write(path: Path, token: str) -> None:
    """Into a new file that nobody else may read: what is there may be in use."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(f"{token}\n")


def _fail(message: str, status: int) -> int:
    print(f"rallypoint token: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rallypoint token",
        description="Make tokens for a coordinator that has a --token-file. Nothing is asked of the coordinator.",
        allow_abbrev=False,
    )
    new = parser.add_subparsers(required=True, metavar="new").add_parser(
        "new", help="make a token; its line goes to standard output", allow_abbrev=False
    )
    new.add_argument(
        "--role", required=True, metavar="ROLE[,ROLE]", help=f"what it is good for: {', '.join(Role)} or several"
    )
    new.add_argument("--job", metavar="JOB", help="good for this job only (default: for every job)")
    new.add_argument("--name", metavar="NAME", help="what logs call it (default: its job and role)")
    new.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="write the token into this new file, for its owner alone, instead of showing it",
    )
    return parser
