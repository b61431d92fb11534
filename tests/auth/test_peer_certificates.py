"""Whose certificate a client has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tasklogs_server.auth.peer_certificates import user_of_certificate
from tasklogs_server.domain.errors import Unauthenticated

Peer = Mapping[str, Sequence[bytes]]
ALICE = "spiffe://example/alice"


@pytest.mark.parametrize(
    ("peer", "subject"),
    [
        ({"peer_uri": [ALICE.encode()]}, ALICE),
        ({"peer_dns": [b"alice.example"]}, "alice.example"),
        ({"peer_uri": [ALICE.encode()], "peer_dns": [b"a.example", b"b.example"]}, ALICE),
    ],
)
def test_the_alternative_name_is_the_subject(peer: Peer, subject: str) -> None:
    user = user_of_certificate(peer, ())
    assert (user.subject, user.is_admin, user.expires_at) == (subject, False, None)


def test_an_admin_is_one_by_the_operators_word() -> None:
    assert user_of_certificate({"peer_uri": [ALICE.encode()]}, {ALICE}).is_admin


@pytest.mark.parametrize(
    "peer",
    [
        {},
        {"x509_common_name": [b"alice"], "peer_email": [b"a@example"], "peer_ip": [b"1.2.3.4"]},
        {"peer_uri": [b"a", b"b"], "peer_dns": [b"alice.example"]},
        {"peer_dns": [b"a.example", b"b.example"]},
        {"peer_uri": [b"\xff"]},
        {"peer_uri": [b"a\nb"]},
        {"peer_uri": [b""]},
        {"peer_uri": [b"a" * 256]},
    ],
)
def test_a_certificate_that_leaves_it_open_is_refused(peer: Peer) -> None:
    with pytest.raises(Unauthenticated):
        user_of_certificate(peer, ())
