"""``rallypoint coordinator``: what it is started with. The server itself is imported once the arguments are right."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rallypoint.durations import timeout_ms
from rallypoint.lean_asyncio import import_asyncio
from rallypoint.limits import PORT_DEFAULT
from rallypoint.security.server_tls import ServerTls
from rallypoint_coordinator.server.options import (
    CALLS_PER_PEER_DEFAULT,
    HOST_DEFAULT,
    KEEP_EVENTS_MIB_DEFAULT,
    RETAIN_DAYS_DEFAULT,
    RETAIN_JOBS_DEFAULT,
    RETAIN_NODES_DEFAULT,
    SNAPSHOT_EVERY_DEFAULT,
    Address,
    ServerOptions,
    parse_address,
)

EXIT_USAGE = 2
LOG_LEVELS = ("debug", "info", "warning", "error")

_LIMITS = (
    ("--retain-jobs", "COUNT", RETAIN_JOBS_DEFAULT, 0, "so many decided jobs are remembered"),
    ("--retain-nodes", "COUNT", RETAIN_NODES_DEFAULT, 0, "decided jobs of so many nodes in all are remembered"),
    ("--retain-days", "DAYS", RETAIN_DAYS_DEFAULT, 0, "so long a decided job is remembered"),
    ("--snapshot-every", "RECORDS", SNAPSHOT_EVERY_DEFAULT, 1, "a snapshot takes the place of so many records"),
    (
        "--keep-events",
        "MIB",
        KEEP_EVENTS_MIB_DEFAULT,
        1,
        "so much memory is for the events that watchers ask for",
    ),
    ("--max-calls-per-peer", "COUNT", CALLS_PER_PEER_DEFAULT, 1, "so many calls one address may have open at once"),
)
"""Flag, unit, default, least, help."""

_SECURITY = (
    ("--tls-cert", "serve TLS with this certificate chain (PEM), which is read again when it changes"),
    ("--tls-key", "the certificate's key (PEM, without a password)"),
    ("--tls-client-ca", "every client must show a certificate that one of these authorities (PEM) signed"),
    ("--token-file", "who may do what, as rallypoint token new prints it; read again when it changes"),
)
"""Flag, help."""


def command(argv: Sequence[str]) -> int:
    """Run the coordinator until it is told to stop. Exit status: 0, 1 if it could not serve, 2 for wrong usage."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed what there is to say
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    try:
        options = _options(arguments)
    except ValueError as error:
        print(f"rallypoint coordinator: {error}", file=sys.stderr)
        return EXIT_USAGE
    _log_to_stderr(arguments.log_level)
    return _run(options)


def _options(arguments: argparse.Namespace) -> ServerOptions:
    """Raises ValueError for what does not go together, and for a door that is left open."""
    options = ServerOptions(
        listen=arguments.listen,
        data_dir=arguments.data_dir,
        retain_jobs=arguments.retain_jobs,
        retain_nodes=arguments.retain_nodes,
        retain_days=arguments.retain_days,
        snapshot_every=arguments.snapshot_every,
        keep_events_mib=arguments.keep_events,
        tls=_tls(arguments),
        token_file=arguments.token_file,
        calls_per_peer=arguments.max_calls_per_peer,
        embedded=arguments.embedded,
        exit_when_idle_s=arguments.exit_when_idle,
    )
    if options.open_door and not arguments.insecure:
        raise ValueError(
            f"--listen {options.listen} can be reached from other machines, and {options.open_door}: give --tls-cert,"
            " --tls-key and --token-file (docs/security.md), listen on 127.0.0.1, or add --insecure if that is meant"
        )
    return options


def _tls(arguments: argparse.Namespace) -> ServerTls | None:
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise ValueError("--tls-cert and --tls-key go together")
    if arguments.tls_cert is None:
        if arguments.tls_client_ca is not None:
            raise ValueError("--tls-client-ca needs --tls-cert and --tls-key: clients show certificates over TLS only")
        return None
    return ServerTls(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)


def _run(options: ServerOptions) -> int:
    # What is imported stays: nothing is to be collected before the server runs, see process.py.
    gc.disable()
    _settle_grpc()
    import_asyncio()
    from rallypoint_coordinator.server.process import run

    try:
        return run(options)
    finally:
        gc.enable()  # it may not have come to serve


def _settle_grpc() -> None:
    """Before gRPC is imported. What a person has set stays."""
    # Else it has a line of its own for every handshake that a stranger does not finish.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # What comes in is read by the thread that hands it to asyncio, as gRPC for Python did before EventEngine, and not
    # by another one that wakes a third: half of the switches between threads, and a third of a message's CPU time.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rallypoint coordinator",
        description="Run the coordinator: rendezvous and restart decisions for all jobs of a cluster.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=_address,
        default=Address(HOST_DEFAULT, PORT_DEFAULT),
        help="where to serve; an IPv6 address goes in brackets, port 0 is any free one (default: %(default)s)",
    )
    _add_store(parser)
    _add_security(parser)
    parser.add_argument(
        "--exit-when-idle",
        metavar="TIME",
        type=_seconds,
        help="end when no agent has been attached or may come back, and nothing was asked, for so long, as in 60s"
        " (default: never)",
    )
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        help="what is logged, to standard error (default: %(default)s)",
    )
    parser.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)
    return parser


def _path(given: str) -> Path:
    """An empty name, as an unset variable leaves it, would be the working directory."""
    if not given:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(given)


def _add_security(parser: argparse.ArgumentParser) -> None:
    for flag, what in _SECURITY:
        parser.add_argument(flag, metavar="FILE", type=_path, help=what)
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="allow a --listen that other machines can reach without TLS, or without credentials",
    )


def _add_store(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--data-dir",
        metavar="DIR",
        type=_path,
        help="keep decisions in this directory, which is made if it is missing: a restart is invisible to jobs then",
    )
    where.add_argument(
        "--store",
        choices=["memory"],
        help="memory: keep decisions as long as the coordinator runs (the default without --data-dir)",
    )
    for flag, metavar, default, least, what in _LIMITS:
        parser.add_argument(
            flag, metavar=metavar, type=_at_least(least), default=default, help=f"{what} (default: %(default)s)"
        )


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    try:
        return timeout_ms(text) / 1000
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _log_to_stderr(level: str) -> None:
    import logging
    import time

    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler])
