"""The subject of a client's certificate: its subject alternative name (RFC 5280, 4.2.1.6)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from cryptography import x509

from tasklogs_server.domain.caller import User
from tasklogs_server.domain.errors import CertificateInvalid
from tasklogs_server.domain.names import owner_violations

# gRPC's name for the whole certificate. gRPC also offers the names in it, but in Python those end
# at the first NUL byte: `root\0.evil.example` would be `root`.
_CERTIFICATE = "x509_pem_cert"
# Certificates of a few kilobytes each, which our own authorities have signed.
_REMEMBERED = 1024


def user_of_certificate(peer: Mapping[str, Iterable[bytes]], admins: Collection[str]) -> User:
    """Return the user of a client certificate, which the TLS handshake has verified.

    `peer` is gRPC's authentication context. The subject is the certificate's one URI, or its one
    DNS name if it has no URI. Raises CertificateInvalid, also for two names of the same kind.
    """
    certificates = list(peer.get(_CERTIFICATE, ()))
    if len(certificates) != 1:
        raise CertificateInvalid("certificate missing")
    subject = _subject(certificates[0])
    return User(subject, is_admin=subject in admins)


# A connection has the same certificate in each of its calls. The handshake has verified it: nothing
# that may change is decided here.
@lru_cache(maxsize=_REMEMBERED)
def _subject(pem: bytes) -> str:
    uris, dns_names = _names(pem)
    names = uris or dns_names
    if not names:
        raise CertificateInvalid("certificate missing")
    if len(names) > 1:
        raise CertificateInvalid("certificate ambiguous")
    [subject] = names
    if owner_violations(subject):
        raise CertificateInvalid("certificate invalid")
    return subject


def _names(pem: bytes) -> tuple[list[str], list[str]]:
    """Return the URIs and the DNS names among the subject alternative names, whole."""
    try:
        extensions = x509.load_pem_x509_certificate(pem).extensions
        found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    except Exception:  # of many types: OpenSSL accepts certificates that this parser does not
        raise CertificateInvalid("certificate invalid") from None
    return (
        found.get_values_for_type(x509.UniformResourceIdentifier),
        found.get_values_for_type(x509.DNSName),
    )
