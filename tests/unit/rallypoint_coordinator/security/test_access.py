from __future__ import annotations

from types import SimpleNamespace

import pytest

from rallypoint.errors import Reason, Refusal
from rallypoint_coordinator.security.access import ANONYMOUS, EVERYTHING, Access, Caller, may_touch
from rallypoint_coordinator.security.policy import POLICY, Role
from rallypoint_coordinator.security.tokens import parse
from support.tokens import certificate_line, grant, token, token_line

READER, FLEET = grant("reader", Role.READ), grant("fleet", Role.AGENT)
MINE = grant("mine", Role.AGENT, job="train")
ALICE = grant("alice", Role.READ, Role.OPERATOR)
TABLE = parse(
    "\n".join(
        [token_line(READER, 1), token_line(FLEET, 2), token_line(MINE, 3), certificate_line(ALICE, "alice.example.org")]
    )
)
ACCESS = Access(TABLE)
GET, LIST, CANCEL, RESTART = (
    f"/rallypoint.v1.JobService/{name}" for name in ("GetJob", "ListJobs", "CancelJob", "RestartJob")
)
ATTACH, GONE = "/rallypoint.v1.AgentService/Attach", "/rallypoint.v1.AgentService/ReportGone"
HEALTH, REFLECTION = "/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def bearer(number: int) -> Caller:
    return Caller(f"Bearer {token(number)}")


def reason(answer: object) -> Reason | None:
    return answer.reason if isinstance(answer, Refusal) else None


@pytest.mark.parametrize("method", POLICY)
@pytest.mark.parametrize(("number", "who"), [(1, READER), (2, FLEET)])
def test_a_role_is_good_for_what_the_table_says(method: str, number: int, who: object) -> None:
    rule, answer = POLICY[method], ACCESS.admit(method, bearer(number))
    if rule.roles is None:
        assert answer is ANONYMOUS
    elif rule.roles & (READER if number == 1 else FLEET).roles:
        assert answer == who
    else:
        assert reason(answer) is Reason.PERMISSION_DENIED


@pytest.mark.parametrize("method", [method for method in POLICY if POLICY[method].roles is not None])
@pytest.mark.parametrize(
    "caller",
    [
        Caller(),
        Caller(""),
        Caller("Bearer"),
        Caller("Bearer "),
        Caller(token(1)),
        Caller(f"Basic {token(1)}"),
        Caller(f"Bearer {token(9)}"),
        Caller(f"Bearer {token(1)} {token(1)}"),
        Caller(None, ("bob.example.org",)),
        # A token that is not good is not made good by a certificate that is.
        Caller(f"Bearer {token(9)}", ("alice.example.org",)),
    ],
)
def test_without_good_credentials_nothing_is_to_be_had(method: str, caller: Caller) -> None:
    assert reason(ACCESS.admit(method, caller)) is Reason.UNAUTHENTICATED


def test_the_refusal_gives_advice_and_no_secret() -> None:
    refusal = ACCESS.admit(ATTACH, bearer(9))
    assert isinstance(refusal, Refusal)
    assert "--token-file" in refusal.message
    assert "role agent" in refusal.message
    assert token(9) not in repr(refusal)


def test_a_certificate_has_the_roles_of_its_name() -> None:
    alice = Caller(None, ("other", "alice.example.org"))
    assert ACCESS.admit(RESTART, alice) == ALICE
    assert reason(ACCESS.admit(ATTACH, alice)) is Reason.PERMISSION_DENIED


def test_a_method_that_is_in_no_rule_is_nobodys() -> None:
    for access in (ACCESS, Access(), Access(needs_certificate=True)):
        assert reason(access.admit("/rallypoint.v1.JobService/Forgotten", bearer(1))) is Reason.PERMISSION_DENIED


def test_without_a_token_file_everybody_may_do_everything() -> None:
    assert Access().is_open
    assert all(Access().admit(method, Caller()) in (EVERYTHING, ANONYMOUS) for method in POLICY)


def test_a_client_ca_alone_admits_its_certificates() -> None:
    access = Access(needs_certificate=True)
    assert not access.is_open
    assert access.admit(ATTACH, Caller(None, ("any",))) == EVERYTHING
    assert reason(access.admit(ATTACH, Caller())) is Reason.UNAUTHENTICATED


def test_a_token_of_one_job_is_good_for_that_one_alone() -> None:
    assert ACCESS.admit(GET, bearer(3)) == MINE
    assert may_touch(MINE, GET, SimpleNamespace(name="jobs/train")) is None
    assert may_touch(MINE, ATTACH, SimpleNamespace(hello=SimpleNamespace(job="train"))) is None
    for method, request in (
        (GET, SimpleNamespace(name="jobs/other")),
        (GET, SimpleNamespace(name="jobs/train2")),
        (GET, SimpleNamespace(name="train")),
        (CANCEL, SimpleNamespace(name="jobs/other")),
        (GONE, SimpleNamespace(job="other")),
        (ATTACH, SimpleNamespace(hello=SimpleNamespace(job="other"))),
        (ATTACH, SimpleNamespace(hello=SimpleNamespace(job=""))),
    ):
        assert reason(may_touch(MINE, method, request)) is Reason.PERMISSION_DENIED, request
    assert may_touch(FLEET, GET, SimpleNamespace(name="jobs/other")) is None


def test_a_token_of_one_job_does_not_see_the_others() -> None:
    table = parse(token_line(grant("one", *Role, job="train"), 5))
    assert reason(Access(table).admit(LIST, bearer(5))) is Reason.PERMISSION_DENIED
    # Which methods there are is no secret.
    assert not isinstance(Access(table).admit(REFLECTION, bearer(5)), Refusal)


def test_what_was_admitted_holds_until_the_table_says_otherwise() -> None:
    caller = bearer(2)
    assert ACCESS.still_holds(FLEET, caller)
    assert not Access(parse(token_line(READER, 1))).still_holds(FLEET, caller)
    assert not Access(parse(token_line(grant("fleet", Role.READ), 2))).still_holds(FLEET, caller)
    assert Access(parse("")).still_holds(ANONYMOUS, Caller())
