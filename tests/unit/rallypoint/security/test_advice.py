"""Against gRPC itself it is tried in tests/wire/test_tls.py."""

from __future__ import annotations

import pytest

from rallypoint.security.advice import advice_on
from rallypoint.security.client import NO_SECURITY, ClientSecurity

TLS = ClientSecurity(tls_ca="ca")
MTLS = ClientSecurity(tls_ca="ca", tls_cert="cert", tls_key="key")


@pytest.mark.parametrize(
    ("details", "security", "advice"),
    [
        ("CERTIFICATE_VERIFY_FAILED: certificate has expired", TLS, "has expired"),
        ("CERTIFICATE_VERIFY_FAILED: certificate is not yet valid", TLS, "compare the clocks"),
        ("CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate", TLS, "--tls-ca"),
        ("Hostname Verification Check failed.", TLS, "name"),
        ("Peer name x is not in peer certificate", TLS, "name"),
        ("WRONG_VERSION_NUMBER", TLS, "leave out --tls-ca"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", MTLS, "--tls-client-ca"),
        ("last error: UNAVAILABLE: ipv4:1.2.3.4:5: Socket closed", NO_SECURITY, "--tls-ca is missing"),
        ("last error: UNAVAILABLE: ipv4:1.2.3.4:5: Socket closed", TLS, "--tls-cert and --tls-key are missing"),
        ("last error: UNAVAILABLE: ipv4:1.2.3.4:5: Socket closed", MTLS, "signed by its --tls-client-ca"),
        ("Failed to connect to remote host: Connection refused", NO_SECURITY, ""),
        ("no Welcome within 10 s", TLS, ""),
    ],
)
def test_advice(details: str, security: ClientSecurity, advice: str) -> None:
    given = advice_on(details, security)
    assert advice in given
    assert bool(given) == bool(advice)
    assert "\n" not in given


def test_what_has_worked_is_not_questioned_for_a_connection_that_broke_off() -> None:
    closed = "last error: UNAVAILABLE: ipv4:1.2.3.4:5: Socket closed"
    assert advice_on(closed, NO_SECURITY, has_worked=True) == ""
    assert "has expired" in advice_on("certificate has expired", TLS, has_worked=True)
