from __future__ import annotations

from pathlib import Path

import pytest

from rallypoint_coordinator import token_cli
from rallypoint_coordinator.security.policy import Role
from rallypoint_coordinator.security.tokens import Grant, parse


def test_the_secret_is_shown_once_and_its_line_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert token_cli.command(["new", "--role", "agent", "--job", "train"]) == 0
    shown = capsys.readouterr()
    token, line = shown.out.splitlines()
    assert parse(line).of_token(token) == Grant("train-agent", frozenset({Role.AGENT}), "train")
    assert shown.err.count("\n") == 1


def test_no_two_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert token_cli.command(["new", "--role", "read,operator", "--name", "alice"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(set(lines)) == 4


def test_out_keeps_the_secret_off_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.token"
    assert token_cli.command(["new", "--role", "agent", "--out", str(path)]) == 0
    shown, token = capsys.readouterr(), path.read_text().strip()
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in shown.out + shown.err
    assert parse(shown.out).of_token(token) == Grant("agent", frozenset({Role.AGENT}))


def test_a_token_that_may_be_in_use_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.token"
    path.write_text("mine\n")
    assert token_cli.command(["new", "--role", "agent", "--out", str(path)]) == 1
    assert path.read_text() == "mine\n"
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        f"rallypoint token: --out {path}: there is a file already, whose token may be in use: it is left as it is;"
        " choose another name, or remove it first\n"
    )


@pytest.mark.parametrize(
    "argv", [[], ["new"], ["new", "--role", "root"], ["new", "--role", "agent", "--job", "no job"], ["old"]]
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert token_cli.command(argv) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "rpt_" not in shown.err
