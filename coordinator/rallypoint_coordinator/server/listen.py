"""Binding the coordinator's address, with an error that says what is wrong with it."""

from __future__ import annotations

import errno
import socket

import grpc
import grpc.aio

from rallypoint_coordinator.server.options import Address

OUR_ADDRESS = "--listen takes an address of this machine"


class ListenError(Exception):
    """The address cannot be listened on; the text names it and says why."""


def listen(server: grpc.aio.Server, address: Address, credentials: grpc.ServerCredentials | None = None) -> Address:
    """Bind the server to the address; without credentials in plain text. Returns it with the real port.

    Raises ListenError.
    """
    _probe(address)
    try:
        if credentials is None:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {address}: {error}") from error
    return Address(address.host, port)


def _probe(address: Address) -> None:
    """Bind the address ourselves and let go of it: gRPC reports no cause, and prints lines of its own."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                probe.listen(1)
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror}; {_advice(error)}") from error
    except UnicodeError as error:  # what no name can be: an empty label, one of more than 63 letters
        raise ListenError(f"cannot listen on {address}: no host has such a name; {OUR_ADDRESS}") from error


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process has the port, perhaps another coordinator: choose another one with --listen"
    if error.errno == errno.EACCES:
        return "choose a port above 1023 with --listen"
    return OUR_ADDRESS
