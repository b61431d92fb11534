"""The port that gRPC listens on: what connections may do there, and binding it."""

from __future__ import annotations

from datetime import timedelta

import grpc

from tasklogs_server.auth.server_certificate import BadCertificate, CertificateFiles
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings
from tasklogs_server.transport.tls import server_credentials

_STREAM_BYTES = 256 * 1024
# A peer that does not acknowledge our SETTINGS in this time speaks no HTTP/2.
_SETTINGS_MS = 10_000

Options = list[tuple[str, int]]


def bind(
    server: grpc.aio.Server, host: str, port: int, certificate: CertificateFiles | None
) -> int:
    """Listen, with TLS where there is a certificate; return the port. Raises StartupError."""
    try:
        if certificate is None:
            return server.add_insecure_port(f"{host}:{port}")
        return server.add_secure_port(f"{host}:{port}", server_credentials(certificate))
    except BadCertificate as error:
        raise StartupError(f"TLS: {error}") from error
    except RuntimeError as error:
        raise StartupError(f"cannot listen on {host}:{port}: is another server there?") from error


def options(settings: ServerSettings, connections: int) -> Options:
    """Return gRPC's channel arguments for a port that takes so many connections."""
    return [
        *_against_half_open_connections(settings, connections),
        ("grpc.max_receive_message_length", settings.message_bytes),
        ("grpc.max_concurrent_streams", settings.streams_per_connection),
        # Streams that were reset count for as long as something of them is held.
        ("grpc.http.overload_protection", 1),
        *_line(settings),
        # What gRPC takes of a stream before anybody reads it. Left to itself it grows with the
        # network's speed: agents that pushed against a slow store cost 5 MB each.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _STREAM_BYTES),
        # On by default: a second server would silently share the port.
        ("grpc.so_reuseport", 0),
        # A peer that vanished is noticed within 20 s, and agents may ask as often as every 5 s.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(settings.ping_interval)),
        ("grpc.http2.max_pings_without_data", 0),
        *_ages(settings),
    ]


def _against_half_open_connections(settings: ServerSettings, connections: int) -> Options:
    return [
        # Past it a connection is closed as it comes.
        ("grpc.max_allowed_incoming_connections", connections),
        # From the TCP connection to the peer's SETTINGS, through TLS.
        ("grpc.server_handshake_timeout_ms", _ms(settings.handshake_timeout)),
        ("grpc.http2.settings_timeout", _SETTINGS_MS),
        ("grpc.max_connection_idle_ms", _ms(settings.connection_idle)),
    ]


def _line(settings: ServerSettings) -> Options:
    """Return how many calls may wait in line until they are handed to us.

    It is one line of all connections, and a call that was reset stays in it: gRPC takes it out for
    nobody but us, a fifth of a millisecond each. (Hanging up on who does that is no help: their
    calls stay in the line, and they are back with more.) A connection can have no more in it than
    streams, those that it reset counted.

    gRPC's own bounds are 1,000, from which on it drops calls at random, and 3,000: a few
    connections are enough, and whoever else calls then is answered CANCELLED, which clients do not
    try again. No argument chooses another status; so the line is as long as its memory may be, and
    calls in it rather wait. Both bounds are one: to drop some of the calls earlier helps nobody.
    """
    return [
        ("grpc.server.max_pending_requests", settings.pending_calls),
        ("grpc.server.max_pending_requests_hard_limit", settings.pending_calls),
    ]


def _ages(settings: ServerSettings) -> Options:
    if settings.connection_age is None:
        return []
    return [
        ("grpc.max_connection_age_ms", _ms(settings.connection_age)),
        ("grpc.max_connection_age_grace_ms", _ms(settings.connection_age_grace)),
    ]


def _ms(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
