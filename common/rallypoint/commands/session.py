"""One command from its arguments to its exit status: it connects, acts, and says in one line what went wrong."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

import grpc

from rallypoint.commands import exits
from rallypoint.commands.connection import Connection, connect
from rallypoint.commands.output import Output, OutputError, give_up_stdout
from rallypoint.commands.problems import explain
from rallypoint.security.client import ClientSecurity, CredentialsError, check, security_of


class Session(NamedTuple):
    """What a command acts with."""

    arguments: Namespace
    connection: Connection
    output: Output


def run_session(prog: str, arguments: Namespace, act: Callable[[Session], None]) -> int:
    """Act, and return the exit status. What stands in the way is told on standard error, in one line."""
    try:
        return _run(prog, arguments, act)
    except CredentialsError as error:
        return _fail(prog, str(error), exits.USAGE)
    except BrokenPipeError:
        give_up_stdout()
        return exits.NOBODY_READS
    except OutputError as error:
        give_up_stdout()
        return _fail(prog, str(error), exits.REFUSED)


def _run(prog: str, arguments: Namespace, act: Callable[[Session], None]) -> int:
    output = Output.of(sys.stdout, as_json=arguments.output == "json")
    with connect(arguments.coordinator, _security(arguments), arguments.timeout) as connection:
        try:
            act(Session(arguments, connection, output))
        except grpc.RpcError as error:
            return _fail(prog, *explain(error, connection))
    return exits.OK


def _security(arguments: Namespace) -> ClientSecurity:
    """How we show who we are. Raises CredentialsError."""
    security = security_of(vars(arguments))
    check(security, (host for host, _ in arguments.coordinator), insecure=arguments.insecure)
    return security


def _fail(prog: str, line: str, status: int) -> int:
    print(f"{prog}: {line}", file=sys.stderr)
    return status
