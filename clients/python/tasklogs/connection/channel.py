"""How every client of TaskLogs opens its channel: credentials, limits, keepalive, backoff."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from datetime import timedelta

import grpc.aio

from tasklogs.connection.loopback import is_loopback_address
from tasklogs.connection.tls import Tls

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""What a client receives in one message at most; the server keeps its pages under 3 MiB."""

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
) -> grpc.aio.Channel:
    """Open a channel to `address` (HOST:PORT), with a connection of its own.

    Nothing is sent before the first call. Must run inside the event loop that the calls run in;
    close it there too. A call on a server that does not answer fails with UNAVAILABLE at once; the
    channel keeps trying behind it. Without `tls` all travels in plain text. While a call runs the
    server is asked every `keepalive` whether it lives. Raises UnusableTls.
    """
    all_options = [*_options(address, keepalive, keepalive_timeout), *options]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=all_options)
    return grpc.aio.secure_channel(address, tls.credentials(), options=all_options)


def _options(address: str, keepalive: timedelta, timeout: timedelta) -> list[Option]:
    return [
        ("grpc.primary_user_agent", f"tasklogs-python/{importlib.metadata.version('tasklogs')}"),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # Only while a call runs, so an idle channel costs nothing. Without ping_timeout_ms a peer
        # that stopped goes unnoticed for a minute, whatever keepalive_timeout_ms says.
        ("grpc.keepalive_time_ms", _ms(keepalive)),
        ("grpc.keepalive_timeout_ms", _ms(timeout)),
        ("grpc.http2.ping_timeout_ms", _ms(timeout)),
        # gRPC's own ceiling of two minutes is too long to wait for a server that is back.
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 10_000),
        # Left to itself gRPC gives all channels of a process to one server the same connection, of
        # which a server takes only so many streams: calls beyond that wait without a word.
        ("grpc.use_local_subchannel_pool", 1),
        # gRPC sends even loopback through http_proxy unless no_proxy names it: a proxy is
        # another machine, or another service, and cannot reach what this address means here.
        ("grpc.enable_http_proxy", 0 if is_loopback_address(address) else 1),
    ]


def _ms(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
