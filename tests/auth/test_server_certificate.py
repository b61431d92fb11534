"""The server's certificate on disk: loaded, reloaded, and kept if the new files are unusable."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from tasklogs_server.auth.server_certificate import BadCertificate, CertificateFiles
from tests.support.fixtures.certificates import Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("server")


def test_it_is_loaded_with_its_key(pair: Pair, authority: Authority) -> None:
    read = CertificateFiles(pair.certificate, pair.key, authority.ca).load()
    assert read.chain == pair.certificate.read_bytes()
    assert read.client_ca == authority.ca.read_bytes()
    assert "PRIVATE" not in repr(read)


def expiry(pair: Pair) -> datetime:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).not_valid_after_utc


def test_unchanged_files_are_no_change(pair: Pair) -> None:
    files = CertificateFiles(pair.certificate, pair.key, None)
    files.load()
    assert files.changed() is None


def test_a_new_pair_is_returned_once_both_files_are_written(
    pair: Pair, authority: Authority
) -> None:
    files = CertificateFiles(pair.certificate, pair.key, None)
    assert files.expires_at is None
    files.load()
    assert files.expires_at == expiry(pair)
    renewed = authority.issue("renewed")
    renewed.key.replace(pair.key)
    with capture_logs() as logged:
        for _ in range(3):
            assert files.changed() is None
    assert [one["event"] for one in logged] == ["certificate.rejected"]
    renewed.certificate.replace(pair.certificate)
    changed = files.changed()
    assert changed is not None
    assert changed.chain == pair.certificate.read_bytes()
    assert files.expires_at == changed.expires_at == expiry(pair)
    assert files.changed() is None


@pytest.mark.parametrize("bad", [b"", b"no PEM", None])
def test_an_unusable_pair_leaves_the_old_one_in_use(pair: Pair, bad: bytes | None) -> None:
    files = CertificateFiles(pair.certificate, pair.key, None)
    files.load()
    good = pair.certificate.read_bytes()
    pair.certificate.unlink()
    if bad is not None:
        pair.certificate.write_bytes(bad)
    assert files.changed() is None
    pair.certificate.write_bytes(good)
    assert files.changed() is not None


def test_the_error_names_the_unusable_file(
    pair: Pair, authority: Authority, tmp_path: Path
) -> None:
    other = authority.issue("other")
    for files, named in (
        (CertificateFiles(pair.certificate, other.key, None), other.key),
        (CertificateFiles(pair.key, pair.key, None), pair.key),
        (CertificateFiles(pair.certificate, pair.certificate, None), pair.certificate),
        (CertificateFiles(pair.certificate, pair.key, pair.key), pair.key),
        (CertificateFiles(tmp_path / "absent", pair.key, None), tmp_path / "absent"),
    ):
        with pytest.raises(BadCertificate) as caught:
            files.load()
        assert str(named) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_error_says_that_certificate_and_key_are_swapped(pair: Pair) -> None:
    for files, said in (
        (
            CertificateFiles(pair.key, pair.certificate, None),
            f"{pair.key} has no usable certificate in PEM",
        ),
        (
            CertificateFiles(pair.certificate, pair.certificate, None),
            f"{pair.certificate} has no usable private key in PEM",
        ),
    ):
        with pytest.raises(BadCertificate) as caught:
            files.load()
        assert str(caught.value) == said


def test_almost_valid_pem_becomes_valid_pem(pair: Pair, authority: Authority) -> None:
    whole = CertificateFiles(pair.certificate, pair.key, authority.ca).load()
    for path in (pair.certificate, pair.key, authority.ca):
        path.write_bytes(b"\t" + path.read_bytes())  # OpenSSL finds no certificate in this
    assert CertificateFiles(pair.certificate, pair.key, authority.ca).load() == whole


@pytest.mark.parametrize(
    ("whole", "broken"),
    [
        (b"\x06\x03\x55\x04\x03\x0c", b"\x06\x03\x55\x04\x03\x00"),  # a name of no type
        (b"\x82\x09localhost", b"\x9e\x09localhost"),  # an alternative name of no kind
    ],
)
def test_the_error_names_a_certificate_that_openssl_cannot_read(
    pair: Pair, whole: bytes, broken: bytes
) -> None:
    [certificate] = x509.load_pem_x509_certificates(pair.certificate.read_bytes())
    der = certificate.public_bytes(Encoding.DER)
    assert whole in der
    bad = x509.load_der_x509_certificate(der.replace(whole, broken))
    pair.certificate.write_bytes(bad.public_bytes(Encoding.PEM))
    with pytest.raises(BadCertificate) as caught:
        CertificateFiles(pair.certificate, pair.key, None).load()
    assert str(pair.certificate) in str(caught.value)


def test_a_key_that_others_can_read_is_noticed(pair: Pair) -> None:
    files = CertificateFiles(pair.certificate, pair.key, None)
    assert not files.key_is_readable_by_others
    pair.key.chmod(0o644)
    assert files.key_is_readable_by_others


def test_an_expired_certificate_causes_a_warning(authority: Authority) -> None:
    pair = authority.issue("old", expired=True)
    with capture_logs() as logged:
        CertificateFiles(pair.certificate, pair.key, None).load()
    assert [one["event"] for one in logged] == ["certificate.expired"]
