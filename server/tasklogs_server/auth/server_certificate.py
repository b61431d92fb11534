"""The server's certificate, its key and the authorities of clients, as files that may change."""

from __future__ import annotations

import ssl
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")

_CERTIFICATE, _KEY = "certificate", "private key"
_Seen = tuple[tuple[int, ...], ...]


class BadCertificate(Exception):
    """The files do not make a certificate to serve with. `str()` says why, in one line."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a handshake needs, in PEM. `client_ca`: who signs the certificates of clients.

    Written anew from what was read: OpenSSL would refuse, at each handshake, what is only nearly
    PEM (an indented BEGIN), and ours is the more lenient reader.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    expires_at: datetime


class CertificateFiles:
    """Files in PEM; whoever renews them writes or replaces them as they like.

    Two files that do not fit together, for a moment or for good, leave the last good ones in use.
    """

    def __init__(self, chain: Path, key: Path, client_ca: Path | None) -> None:
        self._paths = (chain, key) if client_ca is None else (chain, key, client_ca)
        self._seen: _Seen | None = None
        self._said: str | None = None
        self._expires_at: datetime | None = None
        # Asked from the threads of gRPC, several at a time.
        self._lock = threading.Lock()

    def load(self) -> Certificate:
        """Read them. Raises BadCertificate."""
        with self._lock:
            self._seen = self._look()
            return self._load()

    def changed(self) -> Certificate | None:
        """Return what is there now if it is another than at the last call, and whole."""
        with self._lock:
            try:
                now = self._look()
                if now == self._seen:
                    return None
                certificate = self._load()
            except BadCertificate as error:
                if self._said != str(error):
                    _log.error("certificate.rejected", reason=str(error))
                self._said = str(error)
                return None
            self._seen, self._said = now, None
            _log.info("certificate.reloaded")
            return certificate

    @property
    def expires_at(self) -> datetime | None:
        """When the certificate in use expires. None before one was loaded."""
        return self._expires_at

    @property
    def key_is_readable_by_others(self) -> bool:
        """Whether any user of this machine may read the key."""
        return bool(self._paths[1].stat().st_mode & stat.S_IROTH)

    def _look(self) -> _Seen:
        return tuple(_state(path) for path in self._paths)

    def _load(self) -> Certificate:
        chain, key, *client_ca = [_read(path) for path in self._paths]
        certificate = _whole(self._paths, chain, key, client_ca[0] if client_ca else None)
        self._expires_at = certificate.expires_at
        return certificate


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()  # of what a link points to: secrets are often mounted so
    except OSError as error:
        raise BadCertificate(f"cannot read {path}: {error.strerror}") from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificate(f"cannot read {path}: {error.strerror}") from None


def _whole(
    paths: tuple[Path, ...], chain: bytes, key: bytes, client_ca: bytes | None
) -> Certificate:
    # gRPC would take what does not fit together, and fail every handshake.
    certificates = _parsed(paths[0], _CERTIFICATE, lambda: _certificates(chain))
    private = _parsed(paths[1], _KEY, lambda: load_pem_private_key(key, password=None))
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    own = certificates[0]
    public = _parsed(paths[0], _CERTIFICATE, lambda: own.public_key().public_bytes(*form))
    if public != _parsed(paths[1], _KEY, lambda: private.public_key().public_bytes(*form)):
        raise BadCertificate(f"the key in {paths[1]} is not that of the certificate in {paths[0]}")
    authorities = None
    if client_ca is not None:
        authorities = _parsed(paths[2], _CERTIFICATE, lambda: _certificates(client_ca))
    if own.not_valid_after_utc < datetime.now(UTC):
        _log.warning("certificate.expired", expired_at=own.not_valid_after_utc)
    return Certificate(
        _pem(certificates),
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        None if authorities is None else _pem(authorities),
        own.not_valid_after_utc,
    )


def _certificates(pem: bytes) -> Sequence[x509.Certificate]:
    certificates = x509.load_pem_x509_certificates(pem)
    # At what this reader leaves for later a handshake would look: extensions here, names and keys
    # by OpenSSL.
    for one in certificates:
        _ = one.extensions
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(
        cadata=_pem(certificates).decode()
    )
    return certificates


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def _parsed(path: Path, kind: str, parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except Exception:  # of many kinds, and their text is no help: most often it is no PEM
        raise BadCertificate(f"{path} holds no {kind} in PEM that serves here") from None
