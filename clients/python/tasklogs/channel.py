"""How every client of TaskLogs opens its channel: credentials, limits, keepalive, backoff."""

from __future__ import annotations

import importlib.metadata

import grpc.aio

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""What a client receives in one message at most; the server keeps its pages under 3 MiB."""

_LOOPBACK_HOSTS = ("localhost", "[::1]")


def open_channel(address: str) -> grpc.aio.Channel:
    """Open a channel to `address` (HOST:PORT); nothing is sent before the first call.

    Must run inside the event loop that the calls run in; close it there too. A call on a server
    that does not answer fails with UNAVAILABLE at once; the channel keeps trying behind it.
    """
    # The one place where TLS and per-call credentials come in: until the server offers them it
    # listens on loopback only, and this channel is plain text.
    return grpc.aio.insecure_channel(address, options=_options(address))


def _options(address: str) -> list[tuple[str, str | int]]:
    return [
        ("grpc.primary_user_agent", f"tasklogs-python/{importlib.metadata.version('tasklogs')}"),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # Only while a call runs, so an idle channel costs nothing. Without ping_timeout_ms a peer
        # that stopped goes unnoticed for a minute, whatever keepalive_timeout_ms says.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        # gRPC's own ceiling of two minutes is too long to wait for a server that is back.
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 10_000),
        # gRPC sends even loopback through http_proxy unless no_proxy names it: a proxy is
        # another machine, or another service, and cannot reach what this address means here.
        ("grpc.enable_http_proxy", 0 if _is_loopback(address) else 1),
    ]


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0]
    return host in _LOOPBACK_HOSTS or host.startswith("127.")
