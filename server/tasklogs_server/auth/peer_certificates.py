"""The subject of a client's certificate: its subject alternative name (RFC 5280, 4.2.1.6)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from tasklogs_server.domain.caller import User
from tasklogs_server.domain.errors import Unauthenticated
from tasklogs_server.domain.names import owner_violations


def user_of_certificate(peer: Mapping[str, Iterable[bytes]], admins: Collection[str]) -> User:
    """Return whose certificate a connection was opened with; the handshake has verified it.

    `peer` has its names as gRPC's core calls them: `peer_uri`, `peer_dns`. A URI goes before a DNS
    name; two of a kind leave open who it is. Raises Unauthenticated.
    """
    for kind in ("peer_uri", "peer_dns"):
        names = list(peer.get(kind, ()))
        if len(names) > 1:
            raise Unauthenticated("certificate ambiguous")
        if names:
            return _user(names[0], admins)
    raise Unauthenticated("certificate missing")


def _user(name: bytes, admins: Collection[str]) -> User:
    try:
        subject = name.decode()
    except UnicodeDecodeError:
        raise Unauthenticated("certificate invalid") from None
    if owner_violations(subject):
        raise Unauthenticated("certificate invalid")
    return User(subject, is_admin=subject in admins)
