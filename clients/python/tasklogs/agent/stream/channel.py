"""The agent's channel to the server: one for each stream, with keepalive that finds a dead peer."""

from __future__ import annotations

from datetime import timedelta

import grpc

from tasklogs.agent.settings import Settings
from tasklogs.connection import channel
from tasklogs.connection.tls import Tls


def open_channel(address: str, settings: Settings, tls: Tls | None = None) -> grpc.aio.Channel:
    """Open a channel to `address` (HOST:PORT) for one stream.

    A channel that is kept would add gRPC's own backoff to the agent's, and would not see renewed
    certificates. Raises UnusableTls.
    """
    return channel.open_channel(
        address,
        tls=tls,
        keepalive=timedelta(seconds=settings.keepalive_seconds),
        keepalive_timeout=timedelta(seconds=settings.keepalive_timeout_seconds),
        options=[
            # An agent may have nothing to say for days.
            ("grpc.http2.max_pings_without_data", 0),
        ],
    )
