"""PEM files that hold something else: those of a server, of its clients' authorities, and of a client.

An input is three files with NULs between them: certificate, key, authority. They are used, or it is said which cannot
be and why, and no password is asked for.
"""

from __future__ import annotations

import functools
from pathlib import Path
from random import Random

from fuzz.folder import folder
from fuzz.mutate import WORDS, mutated
from fuzz.target import Target, is_a_sentence
from rallypoint.security.client import ClientSecurity, CredentialsError
from rallypoint.security.client import check as check_client
from rallypoint.security.server_tls import ServerContext, ServerTls, TlsFilesError
from support.certificates import Authority

_NAMES = ("cert.pem", "key.pem", "ca.pem")


@functools.cache
def _seed() -> bytes:
    authority = Authority(folder() / "authority")
    pair = authority.issue("server")
    return b"\0".join(path.read_bytes() for path in (pair.cert, pair.key, authority.cert))


def check(data: bytes) -> None:
    parts = [*data.split(b"\0", 2), b"", b""]
    cert, key, ca = (_written(name, part) for name, part in zip(_NAMES, parts, strict=False))
    try:
        ServerContext(ServerTls(cert, key, ca)).current()
    except TlsFilesError as error:
        is_a_sentence(str(error), "a TLS file's error")
    security = ClientSecurity(tls_ca=str(ca), tls_cert=str(cert), tls_key=str(key))
    try:
        check_client(security, ["head"])
    except CredentialsError as error:
        is_a_sentence(str(error), "a TLS file's error")


def _written(name: str, content: bytes) -> Path:
    path = folder() / name
    path.write_bytes(content)
    return path


def generate(rng: Random) -> bytes:
    words = (*WORDS, b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"Proc-Type: 4,ENCRYPTED\n")
    return mutated(rng, [_seed()], words)


TARGET = Target(check=check, generate=generate)
