"""Certificates: the files for the server, and the names in client certificates."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from tasklogs_server.auth.client_certificates import user_of_certificate
from tasklogs_server.auth.server_certificate import BadCertificate, CertificateFiles
from tasklogs_server.domain.errors import Unauthenticated
from tasklogs_server.domain.names import owner_violations
from tests.fuzz.target import Target

_BETWEEN = b"\x1e"  # PEM never contains it
_PEER = b"?"
# The tags of general names (RFC 5280, 4.2.1.6), with any content.
_URI, _DNS, _EMAIL, _IP = 0x86, 0x82, 0x81, 0x87
_KINDS = {b"u": _URI, b"d": _DNS, b"e": _EMAIL}
_ALTERNATIVE_NAMES = x509.ObjectIdentifier("2.5.29.17")
_CLIENT_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))

_Paths = tuple[Path, Path, Path]


class Certificates(Target):
    """Three files (chain, key, authorities of clients). After `?`: the names of a client.

    Files are refused for one documented reason, or OpenSSL accepts what was made of them. So an
    operator learns about bad files at the start of the server, not at the first handshake.
    """

    name: ClassVar[str] = "certificates"
    max_bytes: ClassVar[int] = 8192
    tokens: ClassVar[Sequence[bytes]] = (
        *(b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"-----BEGIN "),
        *(b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----", b"-----", _BETWEEN),
        *(b"-----BEGIN EC PRIVATE KEY-----", b"-----BEGIN TRUSTED CERTIFICATE-----", b"MII"),
        *(b"Proc-Type: 4,ENCRYPTED", b"?u", b"?d", b"\x1eu", b"\x1ed", b"spiffe://a/b"),
    )

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="fuzz-certificates-")
        directory = Path(self._directory.name)
        self._paths = (directory / "chain", directory / "key", directory / "authorities")

    def close(self) -> None:
        self._directory.cleanup()

    def seeds(self) -> Iterable[bytes]:
        keys: list[CertificateIssuerPrivateKeyTypes] = [
            ec.derive_private_key(0x1234567890ABCDEF, ec.SECP256R1()),
            ec.derive_private_key(0xFEDCBA, ec.SECP384R1()),
            ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
        ]
        chains = [_certificate(key) for key in keys]
        private = [_pem(key) for key in keys]
        for chain, key in zip(chains, private, strict=True):
            yield _BETWEEN.join([chain, key, chains[0]])
        first, second, _ = chains
        yield _BETWEEN.join([first + second, private[0], first + second])
        yield _BETWEEN.join([first, private[1], first])
        yield _BETWEEN.join([private[0] + first, first + private[0], b"# none\n" + first])
        yield _BETWEEN.join([first, _pem(keys[0], b"secret"), first])
        yield _BETWEEN.join([first.replace(b"\n", b"\r\n"), private[0], b""])
        yield _BETWEEN.join([second, private[1], first.partition(b"\n-----END")[0]])
        yield _BETWEEN.join([first, _public_pem(keys[0]), first])
        yield _PEER + b"uspiffe://example/alice"
        yield _PEER + b"ua\x1eub\x1edalice.example"
        yield _PEER + b"dalice.example\x1enalice\x1eea@example"
        yield _PEER + b"d*.example\x00.evil"
        yield _PEER + b"u" + b"a" * 256
        yield _PEER + b"u\xff"

    def run(self, data: bytes) -> None:
        if data[:1] == _PEER:
            _check_peer(data[1:].split(_BETWEEN))
        else:
            self._check_files(data.split(_BETWEEN, 2))

    def _check_files(self, contents: Sequence[bytes]) -> None:
        chain, key, authorities = self._write(*contents)
        files = CertificateFiles(chain, key, authorities)
        try:
            loaded = files.load()
        except BadCertificate as refused:
            assert str(refused)
            assert "\n" not in str(refused)
            return
        assert files.changed() is None
        assert loaded.client_ca is not None
        self._write(loaded.chain, loaded.key, loaded.client_ca)
        assert CertificateFiles(chain, key, authorities).load() == loaded
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # weak keys are the operator's decision
        context.load_cert_chain(chain, key)
        context.load_verify_locations(authorities)

    def _write(self, chain: bytes = b"", key: bytes = b"", authorities: bytes = b"") -> _Paths:
        for path, content in zip(self._paths, (chain, key, authorities), strict=True):
            path.write_bytes(content)
        return self._paths


def _check_peer(names: Sequence[bytes]) -> None:
    tagged = [(_KINDS.get(name[:1], _IP), name[1:]) for name in names]
    encoded = b"".join(_der(tag, content) for tag, content in tagged)
    extension = x509.UnrecognizedExtension(_ALTERNATIVE_NAMES, _der(0x30, encoded))
    peer = {"x509_pem_cert": [_certificate(_CLIENT_KEY, extension)]}
    try:
        user = user_of_certificate(peer, ("spiffe://example/root",))
    except Unauthenticated:
        return
    uris, dns_names = ([name for tag, name in tagged if tag == kind] for kind in (_URI, _DNS))
    [decided] = uris or dns_names
    assert user.subject.encode() == decided
    assert not owner_violations(user.subject)
    assert user.is_admin == (user.subject == "spiffe://example/root")


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 128 + len(size)]) + size + content


_LOCALHOST = x509.SubjectAlternativeName([x509.DNSName("localhost")])


def _certificate(
    key: CertificateIssuerPrivateKeyTypes, names: x509.ExtensionType = _LOCALHOST
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fuzz")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(names, critical=False)
    )
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return made.sign(key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.PEM)
    return made.sign(key, None).public_bytes(Encoding.PEM)


def _pem(key: CertificateIssuerPrivateKeyTypes, password: bytes | None = None) -> bytes:
    hidden = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)


def _public_pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
