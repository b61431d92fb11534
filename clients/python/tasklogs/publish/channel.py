"""The agent's channel to the server: one per stream, with keepalive that detects a dead peer."""

from __future__ import annotations

from datetime import timedelta

import grpc

from tasklogs.connection import channel
from tasklogs.connection.tls import Tls
from tasklogs.publish.settings import StreamSettings


def open_channel(
    address: str, settings: StreamSettings, tls: Tls | None = None
) -> grpc.aio.Channel:
    """Open a channel to `address` (HOST:PORT) for one stream.

    A channel that is reused would add gRPC's backoff to the agent's, and would not read renewed
    certificates. Raises UnusableTls.
    """
    return channel.open_channel(
        address,
        tls=tls,
        keepalive=timedelta(seconds=settings.keepalive_seconds),
        keepalive_timeout=timedelta(seconds=settings.keepalive_timeout_seconds),
        options=[
            # An agent may have nothing to send for days.
            ("grpc.http2.max_pings_without_data", 0),
            # By default gRPC measures the bandwidth with a ping every few messages. An agent
            # receives little, so it does not need that.
            ("grpc.http2.bdp_probe", 0),
        ],
    )
