"""A certificate authority of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from rallypoint.security.server_tls import ServerTls

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path

    def replace_by(self, other: Pair) -> None:
        """As a rotation does: each file is renamed over."""
        for mine, theirs in ((self.key, other.key), (self.cert, other.cert)):
            fresh = mine.with_suffix(".new")
            fresh.write_bytes(theirs.read_bytes())
            fresh.replace(mine)


@dataclass
class Authority:
    """Signs what it is asked to. ``cert`` is what others trust."""

    folder: Path
    name: str = "ca"
    _key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    _count: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        builder = _builder(self.name, self.name, self._key.public_key(), timedelta(days=2))
        signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
            self._key, hashes.SHA256()
        )
        self.cert.write_bytes(signed.public_bytes(Encoding.PEM))

    @property
    def cert(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def issue(
        self, common_name: str = "localhost", *names: str, ends_in: timedelta = DAY, has_names: bool = True
    ) -> Pair:
        """A certificate for these names and addresses: by default the coordinator's on loopback."""
        self._count += 1
        stem = self.folder / f"{self.name}-{common_name}-{self._count}"
        pair = Pair(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(common_name, self.name, key.public_key(), ends_in)
        if has_names:
            builder = builder.add_extension(_alternatives(names or ("localhost", "127.0.0.1")), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        pair.cert.write_bytes(signed.public_bytes(Encoding.PEM))
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return pair

    def server_tls(self, *, asks_clients: bool = False) -> ServerTls:
        """What a coordinator on loopback is given."""
        pair = self.issue()
        return ServerTls(pair.cert, pair.key, self.cert if asks_clients else None)


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePublicKey, ends_in: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * DAY)
        .not_valid_after(now + ends_in)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternatives(names: tuple[str, ...]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_alternative(name) for name in names])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
