"""May this caller call this method? And, once the request is known, for this job? Pure."""

from __future__ import annotations

from typing import Any

from rallypoint.errors import Reason, Refusal
from rallypoint.values import dataclass
from rallypoint_coordinator.security.policy import POLICY, Role, Rule, Subject, job_of
from rallypoint_coordinator.security.tokens import Grant, Table

ANONYMOUS = Grant("anonymous", frozenset())
"""Whoever calls what needs no credentials."""

EVERYTHING = Grant("", frozenset(Role))
"""Where there is no access control; and every certificate of the client CA where there is no token file."""

_SCHEME = "bearer"


@dataclass(frozen=True, slots=True)
class Caller:
    """What a caller shows. ``authorization``: that header; None if there is none, or several."""

    authorization: str | None = None
    certificate_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """Whom to believe. ``table`` None: there is no token file.

    Then everybody may do everything or, with ``needs_certificate``, everybody whose certificate the client CA signed;
    the connection would not stand without one.
    """

    table: Table | None = None
    needs_certificate: bool = False

    @property
    def is_open(self) -> bool:
        return self.table is None and not self.needs_certificate

    def grant_of(self, caller: Caller) -> Grant | None:
        """What the caller may do; None for credentials that are none, or not good. A token goes first."""
        if self.table is None:
            return None if self.needs_certificate and not caller.certificate_names else EVERYTHING
        if caller.authorization is None:
            return self.table.of_certificate(caller.certificate_names)
        scheme, _, token = caller.authorization.partition(" ")
        return self.table.of_token(token.strip()) if scheme.lower() == _SCHEME else None

    def admit(self, method: str, caller: Caller) -> Grant | Refusal:
        """The first question, asked before anything of the request is read."""
        rule = POLICY.get(method)
        if rule is None:
            return not_in_policy(method)
        if rule.roles is None:
            return ANONYMOUS
        grant = self.grant_of(caller)
        if grant is None:
            return _unauthenticated(method, rule.roles, caller)
        return may_call(grant, method, rule)

    def still_holds(self, grant: Grant, caller: Caller) -> bool:
        """Whether what was admitted once would be granted the same now."""
        return grant is ANONYMOUS or self.grant_of(caller) == grant


def may_call(grant: Grant, method: str, rule: Rule) -> Grant | Refusal:
    """The grant itself if it has a role that the method needs."""
    assert rule.roles is not None
    if not grant.roles & rule.roles:
        has, needs = _listed(grant.roles, "and"), _listed(rule.roles, "or")
        message = f"{grant.name} has the role {has}, and {_short(method)} needs {needs}"
        metadata = {"method": method, "roles": ",".join(sorted(grant.roles)), "needs": ",".join(sorted(rule.roles))}
        return Refusal(reason=Reason.PERMISSION_DENIED, message=message, metadata=metadata)
    if grant.job is not None and rule.subject is Subject.ALL_JOBS:
        return _other_job(grant, f"{_short(method)}, which is about all of them")
    return grant


def may_touch(grant: Grant, method: str, request: Any) -> Refusal | None:
    """The second question, once there is a request: is it about the job that the grant is for?"""
    subject = POLICY[method].subject
    if grant.job is None or subject is Subject.NOTHING:
        return None
    job = job_of(subject, request)
    return None if job == grant.job else _other_job(grant, f"job {job[:128]!r}" if job else "a request that names none")


def not_in_policy(method: str) -> Refusal:
    message = f"{_short(method)} is in no rule of this coordinator's policy, so nobody may call it"
    return Refusal(reason=Reason.PERMISSION_DENIED, message=message, metadata={"method": method})


def _unauthenticated(method: str, roles: frozenset[Role], caller: Caller) -> Refusal:
    needs = _listed(roles, "or")
    advice = f"{_short(method)} needs the role {needs}: give --token-file a token that this coordinator knows"
    if caller.authorization is not None:
        what = "the token is not one that this coordinator knows"
    elif caller.certificate_names:
        names = ", ".join(caller.certificate_names)[:256]
        what = f"no token, and the certificate's name ({names}) is not one that this coordinator knows"
    else:
        what = "no token"
    metadata = {"method": method, "needs": ",".join(sorted(roles))}
    return Refusal(reason=Reason.UNAUTHENTICATED, message=f"{what}; {advice}", metadata=metadata)


def _other_job(grant: Grant, asked: str) -> Refusal:
    message = f"{grant.name} is for job {grant.job} alone, not for {asked}"
    return Refusal(reason=Reason.PERMISSION_DENIED, message=message, metadata={"job": grant.job or ""})


def _listed(roles: frozenset[Role], word: str) -> str:
    return f" {word} ".join(role for role in Role if role in roles)


def _short(method: str) -> str:
    """``/rallypoint.v1.JobService/GetJob`` as people say it."""
    return method.rpartition(".")[2]
