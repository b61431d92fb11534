"""A separate port for health probes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc

from tasklogs_server.domain.listen_address import host_and_port
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings
from tasklogs_server.transport.health import FewWatches, Health
from tasklogs_server.transport.listener import Options, bind
from tasklogs_server.transport.registration import register_health

_WATCHES = 100
_CONNECTIONS = 200
# Requests that never arrive and unread responses end with their connection at the latest.
_CONNECTION_LASTS = timedelta(minutes=5)


@asynccontextmanager
async def probes(
    settings: ServerSettings,
    servicer: Health,
    *,
    connection_lasts: timedelta = _CONNECTION_LASTS,
) -> AsyncIterator[str | None]:
    """Serve health and nothing else, without TLS: the probes of Kubernetes cannot use TLS.

    Yields the address, None if the port is not configured. Raises StartupError.
    """
    listen = settings.health_listen
    if listen is None:
        yield None
        return
    try:
        host, port = host_and_port(listen)
    except ValueError as error:
        raise StartupError(f"TASKLOGS_HEALTH_LISTEN={listen}: {error}") from error
    server = grpc.aio.server(options=_options(settings, connection_lasts))
    register_health(server, FewWatches(servicer, _WATCHES))
    bound = bind(server, host, port, None)
    await server.start()
    try:
        yield f"{host}:{bound}"
    finally:
        await server.stop(grace=None)


def _options(settings: ServerSettings, connection_lasts: timedelta) -> Options:
    # Its callers are not authenticated, so they get only what a probe needs.
    return [
        ("grpc.so_reuseport", int(settings.is_worker)),
        ("grpc.max_allowed_incoming_connections", _CONNECTIONS),
        ("grpc.max_receive_message_length", 4096),
        # The same: between the two limits gRPC refuses calls at random.
        ("grpc.max_metadata_size", 8192),
        ("grpc.absolute_max_metadata_size", 8192),
        ("grpc.max_concurrent_streams", 20),
        ("grpc.server_handshake_timeout_ms", 5_000),
        ("grpc.http2.settings_timeout", 5_000),
        ("grpc.max_connection_idle_ms", 60_000),
        ("grpc.max_connection_age_ms", int(connection_lasts.total_seconds() * 1000)),
        ("grpc.max_connection_age_grace_ms", 1_000),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
    ]
