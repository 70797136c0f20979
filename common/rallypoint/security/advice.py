"""What to do about a connection that does not come to be: gRPC tells the cause amid a long line, if at all."""

from __future__ import annotations

from rallypoint.security.client import ClientSecurity

_CAUSES = (
    ("certificate has expired", "the coordinator's certificate has expired: renew --tls-cert there"),
    ("certificate is not yet valid", "the coordinator's certificate is not valid yet: compare the clocks"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the coordinator's certificate is not signed by an authority of --tls-ca: is that the right file?",
    ),
    (
        ("Hostname Verification Check failed", "is not in peer certificate"),
        "the coordinator's certificate is not for the name in --coordinator: use a name that it is for",
    ),
    ("WRONG_VERSION_NUMBER", "the coordinator does not speak TLS there: leave out --tls-ca, or give it --tls-cert"),
    (
        ("ALERT_CERTIFICATE", "CERTIFICATE_REQUIRED", "ALERT_UNKNOWN_CA"),
        "the coordinator does not accept our certificate: is --tls-cert signed by an authority of its --tls-client-ca?",
    ),
)
"""What gRPC's text has in it, in any of its releases, and what it means; the first that fits counts."""

_CLOSED = ("Socket closed", "closed by peer", "connection reset", "end of stream", "HTTP/2")
"""What is left of a handshake that the other side broke off: it does not say why."""


def advice_on(details: str, security: ClientSecurity, *, has_worked: bool = False) -> str:
    """One sentence for people; empty if nothing is known that would help.

    ``details``: a failed call's; ``has_worked``: these settings have, so a connection that broke off is only that.
    """
    for marks, meaning in _CAUSES:
        if any(mark in details for mark in ((marks,) if isinstance(marks, str) else marks)):
            return meaning
    if has_worked or not any(mark.lower() in details.lower() for mark in _CLOSED):
        return ""
    if not security.uses_tls:
        return "if the coordinator serves TLS, --tls-ca is missing here"
    if not security.tls_cert:
        return "if the coordinator asks for certificates (--tls-client-ca), --tls-cert and --tls-key are missing here"
    return "the coordinator may not accept our certificate: is --tls-cert in date, and signed by its --tls-client-ca?"
