"""What carries payloads between processes. It may lose some, and says when it surely did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID


class BusUnavailable(Exception):
    """The payloads may not have been sent."""


class Outgoing(NamedTuple):
    """A payload for one process; None: for all."""

    to: UUID | None
    payload: str


class Receiver(NamedTuple):
    """Who gets what arrives. Neither function waits or raises."""

    take: Callable[[str], None]
    """Called with each payload. Those of this process itself may be among them."""
    connection_changed: Callable[[bool], None]
    """Called with True when payloads begin to arrive, and with False when they no longer do."""


class Transport(Protocol):
    """Sends payloads, and receives those of other processes."""

    max_payload_bytes: int

    async def run(self, process_id: UUID, receiver: Receiver) -> None:
        """Receive what is sent to all and to this process, until cancelled. Reconnect if needed."""

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Send in this order. Raises BusUnavailable, also while there is no connection."""
