from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rallypoint_coordinator.security.policy import Role
from rallypoint_coordinator.security.token_file import TokenFile
from rallypoint_coordinator.security.tokens import TokenFileError
from support.tokens import grant, token, token_line, write_lines

FLEET = grant("fleet", Role.AGENT)


def test_a_new_file_is_a_new_table(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "tokens", [token_line(FLEET, 1)])
    tokens = TokenFile(path)
    assert not tokens.refresh()
    write_lines(path, [token_line(FLEET, 2)])
    assert tokens.refresh()
    assert not tokens.refresh()
    assert tokens.table.of_token(token(1)) is None
    assert tokens.table.of_token(token(2)) == FLEET


def test_a_file_that_says_the_same_is_no_news(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "tokens", [token_line(FLEET, 1)])
    tokens = TokenFile(path)
    write_lines(path, [token_line(FLEET, 1), "# and a comment"])
    assert not tokens.refresh()


@pytest.mark.parametrize("wrong", [b"fleet agent *\n", b"\xff\xfe", None])
def test_a_file_that_cannot_be_used_changes_nothing_and_is_told_once(
    wrong: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_lines(tmp_path / "tokens", [token_line(FLEET, 1)])
    tokens = TokenFile(path)
    path.unlink()
    if wrong is not None:
        path.write_bytes(wrong)
    with caplog.at_level(logging.ERROR):
        assert not tokens.refresh()
        assert not tokens.refresh()
    assert len(caplog.messages) == 1
    assert str(path) in caplog.messages[0]
    assert tokens.table.of_token(token(1)) == FLEET
    write_lines(path, [token_line(FLEET, 2)])
    assert tokens.refresh()


@pytest.mark.parametrize(
    ("data", "what"),
    [(None, "No such file"), (b"\xff", "UTF-8"), (b"fleet agent *", "line 1: "), (b"#" * (5 << 20), "bytes")],
)
def test_at_the_start_it_is_an_error(data: bytes | None, what: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(TokenFileError, match=what) as caught:
        TokenFile(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_token_in_place_of_the_file_is_named_and_not_shown() -> None:
    with pytest.raises(TokenFileError, match=r"--token-file takes the path of a file, and this is a token") as caught:
        TokenFile(Path(token(1)))
    assert token(1) not in str(caught.value)


def test_a_file_that_holds_a_token_alone_is_told_so(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "tokens", [token(1)])
    with pytest.raises(TokenFileError, match=r"line 1: this is a token itself: .* rallypoint token new") as caught:
        TokenFile(path)
    assert token(1) not in str(caught.value)
