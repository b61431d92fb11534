"""What a server is at this moment, as it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class ConnectionCounts(Protocol):
    """A set of connections to Postgres."""

    @property
    def in_use(self) -> int:
        """Lent now."""

    @property
    def waiting(self) -> int:
        """How many wait for one."""


@dataclass(frozen=True, slots=True)
class State:
    """Asks for each figure. It is asked in a thread of its own: each answer is one look."""

    sessions: Callable[[], int]
    followers: Callable[[], int]
    handshakes: Callable[[], int]
    unacknowledged_bytes: Callable[[], int]
    untaken_bytes: Callable[[], int]
    store_is_up: Callable[[], bool]
    is_draining: Callable[[], bool]
    connections: Mapping[str, ConnectionCounts]
    certificate_expires_at: Callable[[], datetime | None]
    """None: no TLS."""
