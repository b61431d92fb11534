"""The agent's channel to the server: one for each stream, with keepalive that finds a dead peer."""

from __future__ import annotations

import grpc

from tasklogs.agent.settings import Settings

_LOOPBACK_HOSTS = ("localhost", "[::1]")


def open_channel(address: str, settings: Settings) -> grpc.aio.Channel:
    """Open a channel to `address` (HOST:PORT) for one stream.

    A channel that is kept would add gRPC's own backoff to the agent's. TLS comes in here, as in
    `tasklogs.channel`.
    """
    host = address.rpartition(":")[0]
    is_loopback = host in _LOOPBACK_HOSTS or host.startswith("127.")
    timeout_ms = int(settings.keepalive_timeout_seconds * 1000)
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", int(settings.keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", timeout_ms),
            # Without it a peer that stopped goes unnoticed for a minute, whatever the timeout
            # above.
            ("grpc.http2.ping_timeout_ms", timeout_ms),
            # An agent may have nothing to say for days.
            ("grpc.http2.max_pings_without_data", 0),
            # gRPC sends even loopback through http_proxy unless no_proxy names it.
            ("grpc.enable_http_proxy", 0 if is_loopback else 1),
        ],
    )
