"""How an agent or a command shows who it is: paths of files, which are read again for each channel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rallypoint.limits import TOKEN_PREFIX

if TYPE_CHECKING:
    import grpc
    import grpc.aio

TOKEN_VARIABLE = "RALLYPOINT_TOKEN"
"""The token itself, where there is no file to hold it. Workers do not get it."""

_TOKEN_BYTES_MAX = 4096


class CredentialsError(Exception):
    """A file cannot be used: which, and why. Never says what it holds."""


class ClientSecurity(NamedTuple):
    """The paths of PEM files and of a file with a token; empty for none. It holds no secret, so it may be shown.

    With ``tls_ca`` the connection is TLS, and the coordinator's certificate must be signed by one of its authorities.
    """

    token_file: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""

    @property
    def uses_tls(self) -> bool:
        return bool(self.tls_ca)

    @classmethod
    def of(cls, fields: Sequence[str]) -> ClientSecurity:
        """From JSON; a later release may have had more of them."""
        return cls(*fields[: len(cls._fields)])


class SecurityFlag(NamedTuple):
    """A flag that fills one field. A path, but for its help."""

    name: str
    help: str

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return f"RALLYPOINT_{self.field.upper()}"


FLAGS = (
    SecurityFlag("token-file", "the file with our token for the coordinator; or RALLYPOINT_TOKEN, the token itself"),
    SecurityFlag("tls-ca", "speak TLS with a coordinator whose certificate an authority of this PEM file signed"),
    SecurityFlag("tls-cert", "our own certificate for TLS, if the coordinator asks for one (PEM)"),
    SecurityFlag("tls-key", "its key (PEM, without a password)"),
)
"""What agents and commands have in common. A flag that is not given comes from its variable."""


def security_of(given: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> ClientSecurity:
    """From values by the names of the fields, or the flags' variables."""
    return ClientSecurity(**{flag.field: given.get(flag.field) or environ.get(flag.variable, "") for flag in FLAGS})


Metadata = tuple[tuple[str, str], ...]
"""What goes with each call."""

NO_SECURITY = ClientSecurity()


_hidden: dict[str, str] = {}
"""What :func:`hide_token` took out of the environment."""


def hide_token() -> None:
    """Take the token out of this process's environment: what it starts from now on does not get it. We still use it."""
    if token := os.environ.pop(TOKEN_VARIABLE, None):
        _hidden[TOKEN_VARIABLE] = token


def call_metadata(security: ClientSecurity) -> Metadata:
    """The token, as gRPC carries it; nothing without one. Raises CredentialsError."""
    token = _token(security)
    return (("authorization", f"Bearer {token}"),) if token else ()


def _token(security: ClientSecurity) -> str:
    if not security.token_file:
        return _checked(os.environ.get(TOKEN_VARIABLE) or _hidden.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE)
    if security.token_file.startswith(TOKEN_PREFIX) and not Path(security.token_file).exists():
        raise CredentialsError(
            "--token-file takes the path of a file, and this is a token itself: put it into a file that nobody else may"
            f" read, or into {TOKEN_VARIABLE}"
        )
    data = _read(security.token_file)[: _TOKEN_BYTES_MAX + 1]
    token = _checked(data.decode("ascii", "replace").strip(), security.token_file)
    if not token:
        raise CredentialsError(f"{security.token_file} is empty: it must hold a token")
    return token


def _checked(token: str, source: str) -> str:
    """A token goes into a header: one word of it, and nothing else."""
    if len(token) > _TOKEN_BYTES_MAX or not re.fullmatch(r"[!-~]*", token):
        raise CredentialsError(f"{source} holds no token: that is one word, as rallypoint token new prints it")
    return token


def open_channel(target: str, security: ClientSecurity, options: Sequence[tuple[str, int]] = ()) -> grpc.Channel:
    """A channel of the blocking kind. Raises CredentialsError."""
    import grpc

    credentials = _channel_credentials(security)
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


def open_aio_channel(
    target: str, security: ClientSecurity, options: Sequence[tuple[str, int]] = ()
) -> grpc.aio.Channel:
    """A channel of asyncio's. Raises CredentialsError."""
    import grpc.aio

    credentials = _channel_credentials(security)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


def _channel_credentials(security: ClientSecurity) -> grpc.ChannelCredentials | None:
    if not security.uses_tls:
        return None
    import grpc

    # What does not fit together gRPC would say in lines of its own. It happens amid a rotation.
    _check_tls(security)
    ca = _read(security.tls_ca)
    pair = (_read(security.tls_key), _read(security.tls_cert)) if security.tls_cert else (None, None)
    return grpc.ssl_channel_credentials(ca, *pair)


def check(security: ClientSecurity, hosts: Iterable[str], *, insecure: bool = False) -> None:
    """Refuse at the start what could not be used later, and a token that others would see. Raises CredentialsError.

    ``hosts``: the coordinator's. ``insecure``: a token may cross the network in plain text.
    """
    if bool(security.tls_cert) != bool(security.tls_key):
        raise CredentialsError("--tls-cert and --tls-key go together")
    if security.tls_cert and not security.tls_ca:
        raise CredentialsError("--tls-cert needs --tls-ca, which says whom to believe to be the coordinator")
    if call_metadata(security) and not security.uses_tls and not insecure:
        for host in hosts:
            if not is_loopback(host):
                raise CredentialsError(
                    f"the token would go to {host} in plain text, for everybody on the way to read: give --tls-ca,"
                    " or --insecure if that is meant"
                )
    if security.tls_ca:
        _check_tls(security)


def _check_tls(security: ClientSecurity) -> None:
    from rallypoint.security.server_tls import TlsFilesError, check_authorities, check_pair

    try:
        check_authorities(Path(security.tls_ca))
        if security.tls_cert:
            check_pair(Path(security.tls_cert), Path(security.tls_key))
    except TlsFilesError as error:
        raise CredentialsError(str(error)) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can be there; of a name other than localhost that is not known."""
    # Only who has a token to show asks: the start of the others need not wait for it.
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error
