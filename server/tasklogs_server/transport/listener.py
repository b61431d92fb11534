"""The port that gRPC listens on: its TLS, and what connections may do there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import cast

import grpc

from tasklogs.connection.limits import METADATA_OPTIONS
from tasklogs_server.auth.server_certificate import (
    BadCertificate,
    Certificate,
    CertificateFiles,
)
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings

_STREAM_BYTES = 256 * 1024
# A peer that does not acknowledge our SETTINGS within this time does not speak HTTP/2.
_SETTINGS_MS = 10_000
# Connections stay at the worker that accepted them. A worker that was replaced would get none of
# those that are open for hours, such as agent streams.
_WORKERS_AGE = timedelta(minutes=30)

Options = list[tuple[str, int]]


def bind(
    server: grpc.aio.Server, host: str, port: int, certificate: CertificateFiles | None
) -> int:
    """Listen, with TLS if there is a certificate. Returns the port. Raises StartupError."""
    try:
        if certificate is None:
            return server.add_insecure_port(f"{host}:{port}")
        return server.add_secure_port(f"{host}:{port}", _credentials(certificate))
    except BadCertificate as error:
        raise StartupError(f"TLS: {error}") from error
    except RuntimeError as error:
        raise StartupError(f"cannot listen on {host}:{port}: is another server there?") from error


def _credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Return credentials that follow the files. Raises BadCertificate.

    gRPC asks for the certificate at each new connection. Open connections keep the one that they
    were opened with. If there are authorities for clients, every client must have a certificate
    that one of them has signed.
    """
    first = files.load()

    def now() -> grpc.ServerCertificateConfiguration | None:
        changed = files.changed()
        return None if changed is None else _configuration(changed)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(first),
        # None keeps the certificate in use; the stubs do not say so.
        cast("Callable[[], grpc.ServerCertificateConfiguration]", now),
        require_client_authentication=first.client_ca is not None,
    )


def _configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key, certificate.chain)], certificate.client_ca
    )


def options(settings: ServerSettings, connections: int) -> Options:
    """Return gRPC's channel arguments for a port with at most so many `connections`."""
    return [
        *_against_half_open_connections(settings, connections),
        ("grpc.max_receive_message_length", settings.message_bytes),
        *METADATA_OPTIONS,
        ("grpc.max_concurrent_streams", settings.streams_per_connection),
        # Streams that were reset count for as long as gRPC holds something of them.
        ("grpc.http.overload_protection", 1),
        *_queue(settings),
        # What gRPC reads of a stream ahead of its handler. By default that grows with the network's
        # speed: agents that sent faster than the store could commit cost 5 MB each.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _STREAM_BYTES),
        # On by default: a second server would silently share the port. Workers share it, and their
        # supervisor has made sure that nobody else does.
        ("grpc.so_reuseport", int(settings.is_worker)),
        # A peer that vanishes is noticed within 20 s. Agents may ping as often as every 5 s.
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
        # Further connections are closed at once.
        ("grpc.max_allowed_incoming_connections", connections),
        # From the TCP connection, through TLS, to the peer's SETTINGS.
        ("grpc.server_handshake_timeout_ms", _ms(settings.handshake_timeout)),
        ("grpc.http2.settings_timeout", _SETTINGS_MS),
        ("grpc.max_connection_idle_ms", _ms(settings.connection_idle)),
    ]


def _queue(settings: ServerSettings) -> Options:
    """Return how many calls may wait in a queue until they are accepted.

    All connections share the queues: one for each method of `OWN_QUEUES`, and one for all other
    methods. A call that was reset stays in its queue until we have taken it out. (To close the
    connections of a peer that resets calls does not help: its calls stay in the queue, and it comes
    back with more.) A connection can have no more calls in the queues than streams, including those
    that it has reset.

    By default gRPC drops calls at random from 1,000 on, and all from 3,000 on. A few connections
    can fill that, and all other callers are then answered CANCELLED, which clients do not retry. No
    option chooses another status. So each queue is as long as its memory allows, and calls wait.
    The two limits are the same: to drop some calls earlier helps nobody.
    """
    return [
        ("grpc.server.max_pending_requests", settings.pending_calls),
        ("grpc.server.max_pending_requests_hard_limit", settings.pending_calls),
    ]


def _ages(settings: ServerSettings) -> Options:
    age = settings.connection_age
    if age is None and settings.is_worker:
        age = _WORKERS_AGE
    if age is None:
        return []
    return [
        ("grpc.max_connection_age_ms", _ms(age)),
        ("grpc.max_connection_age_grace_ms", _ms(settings.connection_age_grace)),
    ]


def _ms(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
