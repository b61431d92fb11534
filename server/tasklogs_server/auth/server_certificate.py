"""The server's certificate, its key and the client CAs, in files that may change."""

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
    """The server cannot use the files. `str()` says why, in one line."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a handshake needs, in PEM. `client_ca`: the authorities of client certificates.

    The PEM is written anew from the parsed files. Our parser is more lenient than OpenSSL, which
    would refuse some files (an indented BEGIN) at each handshake.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    expires_at: datetime


class CertificateFiles:
    """Files in PEM. They may be written in place or replaced, in any order.

    While two files do not fit together, the last usable certificate stays in use.
    """

    def __init__(self, chain: Path, key: Path, client_ca: Path | None) -> None:
        self._paths = (chain, key) if client_ca is None else (chain, key, client_ca)
        self._seen: _Seen | None = None
        self._last_error: str | None = None
        self._expires_at: datetime | None = None
        # gRPC calls `changed` from several threads.
        self._lock = threading.Lock()

    def load(self) -> Certificate:
        """Read the files. Raises BadCertificate."""
        with self._lock:
            self._seen = self._look()
            return self._load()

    def changed(self) -> Certificate | None:
        """Return the certificate if the files changed since the last call and are usable."""
        with self._lock:
            try:
                now = self._look()
                if now == self._seen:
                    return None
                certificate = self._load()
            except BadCertificate as error:
                if self._last_error != str(error):
                    _log.error("certificate.rejected", reason=str(error))
                self._last_error = str(error)
                return None
            self._seen, self._last_error = now, None
            _log.info("certificate.reloaded")
            return certificate

    @property
    def expires_at(self) -> datetime | None:
        """When the certificate in use expires. None before `load`."""
        return self._expires_at

    @property
    def key_is_readable_by_others(self) -> bool:
        """Whether every user of this machine may read the key."""
        return bool(self._paths[1].stat().st_mode & stat.S_IROTH)

    def _look(self) -> _Seen:
        return tuple(_state(path) for path in self._paths)

    def _load(self) -> Certificate:
        chain, key, *client_ca = [_read(path) for path in self._paths]
        certificate = _parse(self._paths, chain, key, client_ca[0] if client_ca else None)
        self._expires_at = certificate.expires_at
        return certificate


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()  # follows symbolic links: mounted secrets often are some
    except OSError as error:
        raise BadCertificate(f"cannot read {path}: {error.strerror}") from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificate(f"cannot read {path}: {error.strerror}") from None


def _parse(
    paths: tuple[Path, ...], chain: bytes, key: bytes, client_ca: bytes | None
) -> Certificate:
    # gRPC would accept files that do not fit together, and fail every handshake.
    certificates = _parsed(paths[0], _CERTIFICATE, lambda: _certificates(chain))
    private = _parsed(paths[1], _KEY, lambda: load_pem_private_key(key, password=None))
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    own = certificates[0]
    public = _parsed(paths[0], _CERTIFICATE, lambda: own.public_key().public_bytes(*form))
    if public != _parsed(paths[1], _KEY, lambda: private.public_key().public_bytes(*form)):
        raise BadCertificate(
            f"the key in {paths[1]} does not belong to the certificate in {paths[0]}"
        )
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
    # This parser is lazy: it would report some errors only in a handshake. So read the extensions
    # now, and let OpenSSL read the names and keys.
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
    except Exception:  # of many types, and their texts do not help: most often it is not PEM
        raise BadCertificate(f"{path} has no usable {kind} in PEM") from None
