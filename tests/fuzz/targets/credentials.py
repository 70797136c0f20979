"""Token files, Authorization headers, names in certificates, files with a client's token.

An input is what is read, behind a byte that says where. A file gives a table or says which line is wrong, without
saying what is in it; nobody is let in but by a credential that is in the table; only one word goes into a header.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from random import Random

from fuzz.folder import folder
from fuzz.mutate import WORDS, mutated
from fuzz.target import Target, demand, is_a_sentence
from rallypoint.errors import Refusal
from rallypoint.security.client import ClientSecurity, CredentialsError, call_metadata
from rallypoint_coordinator.security.access import ANONYMOUS, Access, Caller
from rallypoint_coordinator.security.policy import POLICY, Role, Subject
from rallypoint_coordinator.security.token_file import TokenFile
from rallypoint_coordinator.security.tokens import TokenFileError, parse
from support.tokens import certificate_line, grant, token, token_line

_FOLDER = folder()
_LINES = [
    token_line(grant("fleet", Role.AGENT), 1),
    token_line(grant("alice", Role.READ, Role.OPERATOR, job="train"), 2),
    certificate_line(grant("bob", Role.READ), "bob.example.org"),
]
_TABLE = parse("\n".join(_LINES))
_GOOD = {f"bearer {token(number)}".lower(): number for number in (1, 2)}
_METHODS = list({(rule.roles, rule.subject is Subject.ALL_JOBS): method for method, rule in POLICY.items()}.values())
"""One of each kind."""


def _token_file(data: bytes) -> None:
    path = _FOLDER / "tokens"
    path.write_bytes(data)
    try:
        table = TokenFile(path).table
    except TokenFileError as error:
        is_a_sentence(str(error), "a token file's error")
        for word in re.findall(rb"[A-Za-z0-9_-]{40,}", data):
            demand(word.decode() not in str(error), "the error tells what the file holds")
        return
    for known in table.tokens:
        demand(known.encode() in data, f"{known} is good, and is not in the file")
    for name in table.certificates:
        demand(name in data.decode(), f"{name} is good, and is not in the file")
    demand(not any(word in data.decode() for word in table.tokens if not word), "an empty token is good")


def _header(data: bytes) -> None:
    header = data.decode(errors="surrogateescape")
    for method in _METHODS:
        admitted = Access(_TABLE).admit(method, Caller(header))
        if isinstance(admitted, Refusal):
            is_a_sentence(admitted.message, "a refusal")
            demand(len(header) < 20 or header not in admitted.message, "the refusal repeats the header")
        elif admitted is not ANONYMOUS:
            scheme, _, shown = header.partition(" ")
            demand(scheme.lower() == "bearer", f"let in with the scheme {scheme!r}")
            demand(hashlib.sha256(shown.strip().encode()).hexdigest() in _TABLE.tokens, f"let in with {shown!r}")


def _certificate(data: bytes) -> None:
    names = tuple(name.decode("utf-8", "replace") for name in data.split(b"\0"))
    for method in _METHODS:
        admitted = Access(_TABLE).admit(method, Caller(None, names))
        if isinstance(admitted, Refusal):
            is_a_sentence(admitted.message, "a refusal")
        else:
            demand(admitted is ANONYMOUS or "bob.example.org" in names, f"let in as {names}")


def _client_file(data: bytes) -> None:
    path = _FOLDER / "token"
    path.write_bytes(data)
    try:
        metadata = call_metadata(ClientSecurity(token_file=str(path)))
    except CredentialsError as error:
        is_a_sentence(str(error), "a token file's error")
        return
    ((key, value),) = metadata
    demand(key == "authorization" and re.fullmatch(r"Bearer [!-~]+", value) is not None, f"a header {value!r}")


_PLACES: tuple[tuple[Callable[[bytes], None], tuple[bytes, ...]], ...] = (
    (_token_file, ("\n".join(_LINES).encode(), b"# none\n\n", _LINES[1].encode())),
    (_header, tuple(f"Bearer {token(number)}".encode() for number in (1, 2, 3))),
    (_certificate, (b"bob.example.org", b"a\0b", b"bob.example.org\0c")),
    (_client_file, (token(1).encode() + b"\n", b"a" * 4095)),
)
_WORDS = (*WORDS, b"sha256:", b"cert:", b"*", b"agent", b"operator", b"rpt_", b"#", b" ", b"\t", token(1).encode())


def check(data: bytes) -> None:
    if data:
        look, _ = _PLACES[data[0] % len(_PLACES)]
        look(data[1:])


def generate(rng: Random) -> bytes:
    number = rng.randrange(len(_PLACES))
    return bytes([number]) + mutated(rng, _PLACES[number][1], _WORDS)


TARGET = Target(check=check, generate=generate)
