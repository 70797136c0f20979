"""A server's certificate, read again when its files change: a new one needs no restart."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rallypoint.security.files import WatchedFiles
from rallypoint.values import dataclass

# OpenSSL is 4 MB, and every agent and coordinator imports this file: ssl is imported where TLS is spoken.
if TYPE_CHECKING:
    import ssl

    import grpc

log = logging.getLogger(__name__)


class TlsFilesError(Exception):
    """The files cannot be used: which, and why."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files. With ``client_ca`` nobody connects without a certificate that one of its authorities signed."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.cert, self.key, *([self.client_ca] if self.client_ca else []))


class ServerCertificate:
    """What a server shows. ``fetch`` is gRPC's callback: it is asked before each handshake, in threads of gRPC's own.

    Raises TlsFilesError if the files cannot be used at the start. Later, the log says so, and what was good before
    stays in use.
    """

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._files = WatchedFiles(tls.paths)
        self._lock = threading.Lock()
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """For a server's secure port. TLS 1.2 is the least that gRPC speaks."""
        import grpc

        needs_certificate = self._tls.client_ca is not None
        # None is an answer too, which the stubs do not say.
        fetch: Any = self.fetch
        return grpc.dynamic_ssl_server_credentials(self._first, fetch, needs_certificate)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The new certificate; None if there is no news, or none that can be used."""
        with self._lock:
            if not self._files.changed():
                return None
            try:
                fresh = self._read()
            except TlsFilesError as error:
                log.error("the TLS files have changed and cannot be used, the earlier ones stay: %s", error)
                return None
        log.info("a new certificate was read from %s", self._tls.cert)
        return fresh

    def _read(self) -> grpc.ServerCertificateConfiguration:
        import grpc

        try:
            cert, key, *client_ca = self._files.read()
        except OSError as error:
            raise TlsFilesError(f"{error.filename}: {error.strerror}") from error
        check_pair(self._tls.cert, self._tls.key)
        if self._tls.client_ca is not None:
            check_authorities(self._tls.client_ca)
        return grpc.ssl_server_certificate_configuration([(key, cert)], client_ca[0] if client_ca else None)


class ServerContext:
    """The same for Python's own sockets. Raises TlsFilesError if the files cannot be used at the start."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._files = WatchedFiles(tls.paths)
        self._lock = threading.Lock()
        self._context = self._make()

    def current(self) -> ssl.SSLContext:
        """For the next connection. To be called from any thread."""
        with self._lock:
            if self._files.changed():
                try:
                    self._context = self._make()
                except TlsFilesError as error:
                    log.error("the TLS files have changed and cannot be used, the earlier ones stay: %s", error)
            return self._context

    def _make(self) -> ssl.SSLContext:
        try:
            self._files.read()
        except OSError as error:
            raise TlsFilesError(f"{error.filename}: {error.strerror}") from error
        import ssl

        context = _server_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load_pair(context, self._tls.cert, self._tls.key)
        if self._tls.client_ca is not None:
            _load_authorities(context, self._tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def check_pair(cert: Path, key: Path) -> None:
    """Refuse, with TlsFilesError, what gRPC would refuse without a reason."""
    _load_pair(_server_context(), cert, key)


def check_authorities(ca: Path) -> None:
    """Refuse, with TlsFilesError, a file without certificates."""
    _load_authorities(_server_context(), ca)


def _server_context() -> ssl.SSLContext:
    """Not ssl.create_default_context: it would load the system's authorities."""
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    import ssl

    try:
        # With a password that is none a locked key is an error: the terminal is asked for nothing.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        raise TlsFilesError(f"{cert} and {key} are no certificate and its key: {_reason(error)}") from error
    except OSError as error:
        raise TlsFilesError(f"{cert} or {key}: {error.strerror}") from error


def _load_authorities(context: ssl.SSLContext, ca: Path) -> None:
    import ssl

    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise TlsFilesError(f"{ca} holds no certificates: {_reason(error)}") from error
    except OSError as error:
        raise TlsFilesError(f"{ca}: {error.strerror}") from error


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "not PEM").lower().replace("_", " ")
