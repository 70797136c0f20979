from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint.limits import TOKEN_PREFIX
from rallypoint_coordinator.security.policy import Role
from rallypoint_coordinator.security.tokens import (
    SECRET_BYTES,
    Table,
    TokenFileError,
    digest,
    line_of,
    parse,
    token_of,
)
from support.tokens import certificate_line, grant, token, token_line

HASH = f"sha256:{'0a' * 32}"


def test_a_table_knows_whose_a_token_is() -> None:
    fleet, mine = grant("fleet", Role.AGENT), grant("train-agent", Role.AGENT, job="train")
    alice = grant("alice", Role.READ, Role.OPERATOR)
    lines = [
        token_line(fleet, 1),
        "",
        "# a comment",
        f"{token_line(mine, 2)}  # for a week",
        certificate_line(alice, "alice.example.org"),
    ]
    table = parse("\n".join(lines))
    assert len(table) == 3
    assert table.of_token(token(1)) == fleet
    assert table.of_token(token(2)) == mine
    assert table.of_token(token(3)) is None
    assert table.of_certificate(("bob.example.org", "alice.example.org")) == alice
    assert table.of_certificate(("bob.example.org",)) is None
    assert table.of_certificate(()) is None


def test_an_empty_file_lets_nobody_in() -> None:
    assert parse("") == Table()
    assert len(parse("# nobody yet\n")) == 0


@pytest.mark.parametrize(
    "wrong", ["", "rpt_", "x" * 47, token(1) + "x", token(1)[:-1], token(1) + "\n", "rpt_" + "é" * 43]
)
def test_what_is_no_token_is_nobodys(wrong: str) -> None:
    table = parse(f"a agent * sha256:{digest(wrong)}")
    assert table.of_token(wrong) is None


def test_the_file_has_no_secret_in_it() -> None:
    line = token_line(grant("fleet", Role.AGENT), 1)
    assert token(1) not in line
    assert token(1).removeprefix(TOKEN_PREFIX) not in line


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("fleet agent *", "four words"),
        (f"fleet agent * {HASH} more", "four words"),
        (f"fl/eet agent * {HASH}", "name"),
        (f"{'n' * 65} agent * {HASH}", "name"),
        (f"fleet root * {HASH}", "roles"),
        (f"fleet agent, * {HASH}", "roles"),
        (f"fleet agent -job {HASH}", "job"),
        ("fleet agent * md5:00", "credential"),
        (f"fleet agent * {HASH.upper()}", "credential"),
        ("fleet agent * cert:", "credential"),
        (f"fleet agent * {token(1)}", "only its hash"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(line: str, what: str) -> None:
    with pytest.raises(TokenFileError, match=what) as caught:
        parse(f"# first\n{line}\n")
    assert str(caught.value).startswith("line 2: ")
    assert token(1) not in str(caught.value)


def test_a_credential_means_one_thing() -> None:
    with pytest.raises(TokenFileError, match="line 2: the same credential"):
        parse(f"a read * {HASH}\nb operator * {HASH}")


def test_a_line_that_could_not_be_read_is_not_written() -> None:
    with pytest.raises(TokenFileError, match="job"):
        line_of(grant("a", Role.AGENT, job="no job"), HASH)


@given(st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_every_token_is_found_again(secret: bytes) -> None:
    made = token_of(secret)
    fleet = grant("fleet", Role.AGENT)
    assert parse(line_of(fleet, f"sha256:{digest(made)}")).of_token(made) == fleet


@given(
    st.text() | st.lists(st.sampled_from(["a", "agent", "*", HASH, "cert:x", "#", "\n", " ", "read,"])).map(" ".join)
)
def test_any_text_is_a_table_or_an_error(text: str) -> None:
    try:
        table = parse(text)
    except TokenFileError:
        return
    assert len(table) <= len(text.splitlines())
