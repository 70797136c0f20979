from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rallypoint.security import client
from rallypoint.security.client import (
    FLAGS,
    NO_SECURITY,
    TOKEN_VARIABLE,
    ClientSecurity,
    CredentialsError,
    call_metadata,
    check,
    hide_token,
    security_of,
)
from support.certificates import Authority
from support.tokens import token


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.setattr(client, "_hidden", {})


def test_without_a_token_nothing_is_shown() -> None:
    assert call_metadata(NO_SECURITY) == ()


def test_the_file_is_read_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    security = ClientSecurity(token_file=str(path))
    for number in (1, 2):
        path.write_text(f"{token(number)}\n")
        assert call_metadata(security) == (("authorization", f"Bearer {token(number)}"),)


def test_the_file_goes_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, token(1))
    assert call_metadata(NO_SECURITY) == (("authorization", f"Bearer {token(1)}"),)
    path = tmp_path / "token"
    path.write_text(token(2))
    assert call_metadata(ClientSecurity(token_file=str(path))) == (("authorization", f"Bearer {token(2)}"),)


def test_a_hidden_token_is_not_inherited_and_still_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, token(1))
    hide_token()
    assert TOKEN_VARIABLE not in os.environ
    hide_token()
    assert call_metadata(NO_SECURITY) == (("authorization", f"Bearer {token(1)}"),)


@pytest.mark.parametrize("text", [None, "", "\n", "two words", "line\nline", "x" * 5000, "ä", "\0"])
def test_a_file_that_holds_no_token(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CredentialsError, match=str(path)) as caught:
        call_metadata(ClientSecurity(token_file=str(path)))
    assert "line\nline" not in str(caught.value)


def test_a_token_in_place_of_the_file_is_named_and_not_shown() -> None:
    with pytest.raises(
        CredentialsError, match=r"this is a token itself: put it into a file .*RALLYPOINT_TOKEN"
    ) as caught:
        check(ClientSecurity(token_file=token(1)), ["localhost"])
    assert token(1) not in str(caught.value)


def test_paths_may_be_shown_and_written() -> None:
    security = ClientSecurity("t", "ca", "cert", "key")
    assert ClientSecurity.of(json.loads(json.dumps(security))) == security
    assert ClientSecurity.of(["t", "ca", "cert", "key", "of a later release"]) == security


def test_what_is_not_given_comes_from_the_variables() -> None:
    environ = {flag.variable: flag.name for flag in FLAGS}
    assert sorted(environ) == [f"RALLYPOINT_{name}" for name in ("TLS_CA", "TLS_CERT", "TLS_KEY", "TOKEN_FILE")]
    assert security_of({}, environ) == ClientSecurity(*(flag.name for flag in FLAGS))
    assert security_of({"tls_ca": "given"}, environ).tls_ca == "given"
    assert security_of({}, {}) == NO_SECURITY


def test_what_does_not_go_together_is_refused_at_the_start(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    pair, other = ca.issue(), ca.issue()
    good = ClientSecurity("", str(ca.cert), str(pair.cert), str(pair.key))
    check(good, ["far.example.org"])
    for wrong, what in (
        (good._replace(tls_key=""), "--tls-cert and --tls-key"),
        (good._replace(tls_ca=""), "--tls-cert needs --tls-ca"),
        (good._replace(tls_key=str(other.key)), "no certificate and its key"),
        (good._replace(tls_ca=str(tmp_path / "none")), "No such file"),
        (good._replace(tls_ca=str(pair.key)), "holds no certificates"),
        (good._replace(token_file=str(tmp_path / "none")), "No such file"),
    ):
        with pytest.raises(CredentialsError, match=what):
            check(wrong, ["far.example.org"])


def test_a_token_does_not_go_over_the_network_in_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(token(1))
    security = ClientSecurity(token_file=str(path))
    check(security, ["127.0.0.1", "localhost", "::1"])
    with pytest.raises(CredentialsError, match=r"plain text.*--tls-ca") as caught:
        check(security, ["localhost", "10.0.0.1"])
    assert "10.0.0.1" in str(caught.value)
    assert token(1) not in str(caught.value)
    check(security, ["10.0.0.1"], insecure=True)
    check(security._replace(tls_ca=str(Authority(tmp_path).cert)), ["10.0.0.1"])
    check(NO_SECURITY, ["10.0.0.1"])
