from __future__ import annotations

import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from rallypoint.security.server_tls import ServerCertificate, ServerTls, TlsFilesError
from support.certificates import Authority, Pair


def test_a_new_certificate_is_news_once(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    tls = ca.server_tls(asks_clients=True)
    certificate = ServerCertificate(tls)
    assert certificate.fetch() is None
    Pair(tls.cert, tls.key).replace_by(ca.issue())
    assert certificate.fetch() is not None
    assert certificate.fetch() is None


def test_half_a_rotation_keeps_what_was_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = Authority(tmp_path)
    tls, fresh = ca.server_tls(), ca.issue()
    certificate = ServerCertificate(tls)
    tls.cert.write_bytes(fresh.cert.read_bytes())
    with caplog.at_level(logging.ERROR):
        assert certificate.fetch() is None
        assert certificate.fetch() is None
    assert len(caplog.messages) == 1
    tls.key.write_bytes(fresh.key.read_bytes())
    assert certificate.fetch() is not None


def _locked(pair: Pair) -> None:
    key = load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda pair: pair.cert.unlink(), "No such file"),
        (lambda pair: pair.key.unlink(), "No such file"),
        (lambda pair: pair.cert.write_text("no PEM"), "no certificate and its key"),
        (lambda pair: pair.key.write_text(""), "no certificate and its key"),
        (lambda pair: pair.key.write_bytes(Authority(pair.key.parent, "other").issue().key.read_bytes()), "mismatch"),
        (_locked, "no certificate and its key"),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_start(spoil: object, what: str, tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue()
    assert callable(spoil)
    spoil(pair)
    with pytest.raises(TlsFilesError, match=what) as caught:
        ServerCertificate(ServerTls(pair.cert, pair.key))
    assert str(pair.cert) in str(caught.value) or str(pair.key) in str(caught.value)


def test_authorities_that_are_none(tmp_path: Path) -> None:
    pair, empty = Authority(tmp_path).issue(), tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(TlsFilesError, match="holds no certificates"):
        ServerCertificate(ServerTls(pair.cert, pair.key, empty))
