"""The user of a client certificate."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from cryptography import x509

from tasklogs_server.auth.client_certificates import user_of_certificate
from tasklogs_server.domain.errors import Unauthenticated
from tests.support.fixtures.certificates import Authority

Names = Sequence[x509.GeneralName]
PeerOf = Callable[[Names], Mapping[str, Sequence[bytes]]]

URI, DNS = x509.UniformResourceIdentifier, x509.DNSName
ALICE = "spiffe://example/alice"


@pytest.fixture
def peer_of(tmp_path: Path) -> PeerOf:
    """gRPC's context of a peer whose certificate has these names, and `root` as common name."""
    authority = Authority(tmp_path)
    return lambda names: {
        "x509_pem_cert": [authority.issue("root", names).certificate.read_bytes()]
    }


@pytest.mark.parametrize(
    ("names", "subject"),
    [
        ([URI(ALICE)], ALICE),
        ([DNS("alice.example")], "alice.example"),
        ([DNS("a.example"), URI(ALICE), DNS("b.example")], ALICE),
        ([x509.RFC822Name("a@example"), DNS("alice.example")], "alice.example"),
    ],
)
def test_the_subject_is_the_alternative_name(peer_of: PeerOf, names: Names, subject: str) -> None:
    user = user_of_certificate(peer_of(names), {"root"})
    assert (user.subject, user.is_admin, user.expires_at) == (subject, False, None)


def test_each_certificate_has_its_own_subject_also_when_it_is_seen_again(peer_of: PeerOf) -> None:
    alice, bob = peer_of([URI(ALICE)]), peer_of([DNS("bob.example")])
    seen = [user_of_certificate(peer, ()).subject for peer in (alice, bob, alice, bob)]
    assert seen == [ALICE, "bob.example"] * 2
    assert user_of_certificate(alice, {ALICE}).is_admin
    assert not user_of_certificate(alice, ()).is_admin


def test_only_listed_subjects_are_admins(peer_of: PeerOf) -> None:
    assert user_of_certificate(peer_of([URI(ALICE)]), {ALICE}).is_admin


@pytest.mark.parametrize(
    "names",
    [
        [],
        [x509.RFC822Name("root@example"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))],
        [URI("a"), URI("b"), DNS("alice.example")],
        [URI("a"), URI("a")],
        [DNS("a.example"), DNS("b.example")],
        [URI("a\nb")],
        [URI("")],
        [URI(""), DNS("root")],
        [URI("a" * 256)],
        [URI("root\0")],
        [URI("root\0.evil.example")],
        [DNS("root\0.evil.example")],
    ],
)
def test_a_certificate_without_exactly_one_subject_is_refused(
    peer_of: PeerOf, names: Names
) -> None:
    with pytest.raises(Unauthenticated):
        user_of_certificate(peer_of(names), {"root"})


@pytest.mark.parametrize(
    "peer",
    [{}, {"x509_common_name": [b"root"], "peer_dns": [b"root"]}, {"x509_pem_cert": [b"none"]}],
)
def test_a_call_without_a_certificate_is_refused(peer: Mapping[str, Sequence[bytes]]) -> None:
    with pytest.raises(Unauthenticated):
        user_of_certificate(peer, {"root"})
