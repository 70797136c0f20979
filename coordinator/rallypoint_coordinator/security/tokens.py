"""Tokens, and the file that says whose they are. Pure.

A token is ``rpt_`` and 32 random bytes. The file has its SHA-256 alone: nobody can guess 256 bits, whatever the hash
costs, and a slow hash (scrypt) would be a way to keep a coordinator busy without any credentials.

One line of the file is one credential, in four words::

    NAME  ROLES  JOB  CREDENTIAL
    fleet  agent  *  sha256:1f3a...
    alice  read,operator  *  cert:alice.example.org

NAME is what logs call it. ROLES are separated by commas. JOB is the one job it is for, or ``*``. A ``cert:`` is the
name in a client's certificate. What follows a ``#``, and empty lines, are comments.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import field

from rallypoint.limits import JOB_NAME_PATTERN, TOKEN_PREFIX
from rallypoint.values import dataclass
from rallypoint_coordinator.security.policy import Role

SECRET_BYTES = 32
FILE_BYTES_MAX = 4 << 20

ANY_JOB = "*"

TOKEN_ITSELF = "a token itself: only its hash belongs into the file, in the line that rallypoint token new prints"

_TOKEN = re.compile(rf"{TOKEN_PREFIX}[A-Za-z0-9_-]{{43}}")
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_JOB = re.compile(JOB_NAME_PATTERN)
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_CERTIFICATE = re.compile(r"cert:(\S{1,253})")


class TokenFileError(ValueError):
    """What is wrong with the file, and in which line. Never says what the line holds."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one credential allows. ``job`` None: every job's."""

    name: str
    roles: frozenset[Role]
    job: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Every credential that is good: tokens by their digests, certificates by their names."""

    tokens: Mapping[str, Grant] = field(default_factory=dict)
    certificates: Mapping[str, Grant] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens) + len(self.certificates)

    def of_token(self, token: str) -> Grant | None:
        """Whose token it is. What cannot be one is not even hashed."""
        return self.tokens.get(digest(token)) if _TOKEN.fullmatch(token) else None

    def of_certificate(self, names: tuple[str, ...]) -> Grant | None:
        """The first of the certificate's names that is known."""
        return next((self.certificates[name] for name in names if name in self.certificates), None)


def token_of(secret: bytes) -> str:
    """The token of SECRET_BYTES random bytes."""
    import base64

    return TOKEN_PREFIX + base64.urlsafe_b64encode(secret).rstrip(b"=").decode()


def digest(token: str) -> str:
    """What the file has in its place."""
    return hashlib.sha256(token.encode()).hexdigest()


def line_of(grant: Grant, credential: str) -> str:
    """The line that grants it: ``credential`` is ``sha256:...`` or ``cert:...``. Raises TokenFileError."""
    roles = ",".join(role for role in Role if role in grant.roles)
    words = [grant.name, roles, grant.job or ANY_JOB, credential]
    _add(*_credential(words), {}, {})
    return "  ".join(words)


def parse(text: str) -> Table:
    """The table that a file's text is. Raises TokenFileError."""
    tokens: dict[str, Grant] = {}
    certificates: dict[str, Grant] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            grant, credential = _credential(words)
            _add(grant, credential, tokens, certificates)
        except TokenFileError as error:
            raise TokenFileError(f"line {number}: {error}") from None
    return Table(tokens, certificates)


def _credential(words: list[str]) -> tuple[Grant, str]:
    if words[0].startswith(TOKEN_PREFIX):
        raise TokenFileError(f"this is {TOKEN_ITSELF}")
    if len(words) != 4:
        raise TokenFileError(f"a line has four words, NAME ROLES JOB CREDENTIAL, and this has {len(words)}")
    name, roles, job, credential = words
    if not _NAME.fullmatch(name):
        raise TokenFileError("the name must be 1 to 64 characters of [A-Za-z0-9._@-]")
    if job != ANY_JOB and not _JOB.fullmatch(job):
        raise TokenFileError(f"the job must be a job's name or {ANY_JOB}")
    return Grant(name, parse_roles(roles), None if job == ANY_JOB else job), credential


def parse_roles(text: str) -> frozenset[Role]:
    """From ``read,operator``. Raises TokenFileError."""
    try:
        return frozenset(map(Role, text.split(",")))
    except ValueError:
        raise TokenFileError(f"the roles must be some of {', '.join(Role)}, separated by commas") from None


def _add(grant: Grant, credential: str, tokens: dict[str, Grant], certificates: dict[str, Grant]) -> None:
    if hashed := _HASH.fullmatch(credential):
        where, key = tokens, hashed[1]
    elif certified := _CERTIFICATE.fullmatch(credential):
        where, key = certificates, certified[1]
    elif credential.startswith(TOKEN_PREFIX):
        raise TokenFileError(f"this is {TOKEN_ITSELF}")
    else:
        raise TokenFileError("the credential must be sha256: with 64 hexadecimal digits, or cert: with a name")
    if key in where:
        raise TokenFileError("the same credential is in an earlier line")
    where[key] = grant
