"""What goes wrong for a program that publishes. What the server refuses is a TaskLogsRpcError."""

from __future__ import annotations


class PublisherClosed(RuntimeError):
    """The publisher is not open: not yet, or no longer."""

    def __init__(self) -> None:
        super().__init__("the publisher is not open: use it inside `with` or `async with`")


class NotStored(Exception):
    """The publisher was closed before everything was stored. `str()` says why."""
