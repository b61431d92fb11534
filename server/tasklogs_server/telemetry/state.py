"""What the gauges read of a running server.

Apart from `gauges`, which imports prometheus_client: this is built without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class ConnectionCounts(Protocol):
    """A pool of connections to Postgres."""

    @property
    def in_use(self) -> int:
        """Connections that are lent now."""

    @property
    def waiting(self) -> int:
        """Callers that wait for one."""


@dataclass(frozen=True, slots=True)
class State:
    """One function per figure. They run in the scrape's thread: each reads one value."""

    sessions: Callable[[], int]
    followers: Callable[[], int]
    handshakes: Callable[[], int]
    held_commits: Callable[[], int]
    unacknowledged_bytes: Callable[[], int]
    upload_bytes: Callable[[], int]
    untaken_bytes: Callable[[], int]
    waiting_follows: Callable[[], int]
    tail_bytes: Callable[[], int]
    page_cache_bytes: Callable[[], int]
    page_cache_hits: Callable[[], int]
    page_cache_misses: Callable[[], int]
    purge_backlog: Callable[[], int]
    purge_set_aside: Callable[[], int]
    retirement_backlog: Callable[[], int]
    store_is_up: Callable[[], bool]
    is_draining: Callable[[], bool]
    bus_processes: Callable[[], int]
    bus_gaps: Callable[[], int]
    connections: Mapping[str, ConnectionCounts]
    certificate_expires_at: Callable[[], datetime | None]
    """None: no TLS."""
