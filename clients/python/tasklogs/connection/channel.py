"""Opens the channel of every TaskLogs client: credentials, limits, keepalive, backoff."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import grpc
import grpc.aio

from tasklogs.connection.limits import METADATA_OPTIONS
from tasklogs.connection.loopback import is_loopback_address
from tasklogs.connection.renewal import RenewedChannel
from tasklogs.connection.tls import Tls
from tasklogs.version import version

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest message that a client accepts. The server keeps its pages under 3 MiB."""

Option = tuple[str, str | int]

_KEEPALIVE = timedelta(seconds=30)
_KEEPALIVE_TIMEOUT = timedelta(seconds=10)


def open_channel(
    address: str,
    *,
    tls: Tls | None = None,
    keepalive: timedelta = _KEEPALIVE,
    keepalive_timeout: timedelta = _KEEPALIVE_TIMEOUT,
    options: Sequence[Option] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """Open a channel to `address` (HOST:PORT), with its own connection.

    Open and close it in the event loop that makes the calls. Nothing is sent before the first call.
    If the server cannot be reached, a call fails with UNAVAILABLE at once, and the channel keeps
    trying in the background. Without `tls`, everything is sent in plain text. While a call runs,
    the server is pinged every `keepalive`. `options` replace those of the library with the same
    name. When the files of `tls` are renewed, new calls use them. Raises UnusableTls.
    """
    # Of two options with one name gRPC takes the first.
    merged = {**dict(_options(address, keepalive, keepalive_timeout)), **dict(options)}
    all_options = tuple(merged.items())
    if tls is None:
        return grpc.aio.insecure_channel(address, options=all_options, interceptors=interceptors)

    def open_with(credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            address, credentials, options=all_options, interceptors=interceptors
        )

    return RenewedChannel(tls, open_with) if tls.has_files else open_with(tls.credentials())


def _options(address: str, keepalive: timedelta, timeout: timedelta) -> list[Option]:
    return [
        ("grpc.primary_user_agent", f"tasklogs-python/{version()}"),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        *METADATA_OPTIONS,
        # Pings are sent only while a call runs, so an idle channel costs nothing. Without
        # ping_timeout_ms, a dead peer goes unnoticed for a minute despite keepalive_timeout_ms.
        ("grpc.keepalive_time_ms", _ms(keepalive)),
        ("grpc.keepalive_timeout_ms", _ms(timeout)),
        ("grpc.http2.ping_timeout_ms", _ms(timeout)),
        # gRPC's default ceiling is two minutes: too long once the server is back. The waits of a
        # follow come on top.
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # By default all channels of a process share one connection per server. A server limits the
        # streams of a connection, and calls beyond that limit wait silently.
        ("grpc.use_local_subchannel_pool", 1),
        # gRPC uses http_proxy even for loopback, unless no_proxy names it. A proxy on another
        # machine would connect to its own loopback interface.
        ("grpc.enable_http_proxy", 0 if is_loopback_address(address) else 1),
    ]


def _ms(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
