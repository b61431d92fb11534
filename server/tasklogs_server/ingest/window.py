"""Counts the appends of one session that are received, in a commit, and committed."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from tasklogs_server.limits.ingest_budget import IngestBudget


class InFlight(NamedTuple):
    """The content of the commit that is under way.

    `seen_at`: when the agent saw the oldest change in it, in seconds of this process's monotonic
    clock.
    """

    sequence: int
    size_bytes: int
    seen_at: float | None


class Window:
    """The unacknowledged bytes of a session, and whether the agent may send more.

    The bytes count against the budget of the process. The caller of `received` has acquired them
    from the budget. The window releases them when they are committed or lost.
    """

    def __init__(self, limit_bytes: int, budget: IngestBudget) -> None:
        self.received_sequence = 0
        """The sequence number of the last append that was received."""
        self.acked_sequence = 0
        """The sequence number of the last append that is committed."""
        self.in_flight: InFlight | None = None
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._unacked_bytes = 0
        """Pending bytes, and bytes in flight."""
        self._seen_at: float | None = None
        self._has_capacity = asyncio.Event()
        self._has_capacity.set()
        self._all_committed = asyncio.Event()
        self._all_committed.set()

    @property
    def is_idle(self) -> bool:
        """Whether all received appends are committed."""
        return self._all_committed.is_set()

    def received(self, sequence: int, size_bytes: int, seen_at: float) -> bool:
        """Count an append. Return whether the agent may send the next one.

        `seen_at`: when the agent saw its oldest change, as in `InFlight`.
        """
        self.received_sequence = sequence
        self._unacked_bytes += size_bytes
        if self._seen_at is None:
            self._seen_at = seen_at
        self._all_committed.clear()
        if self._unacked_bytes <= self._limit_bytes:
            return True
        self._has_capacity.clear()
        return False

    def handed_over(self) -> None:
        """Note that the commit that begins now has all received appends."""
        self.in_flight = InFlight(self.received_sequence, self._unacked_bytes, self._seen_at)
        self._seen_at = None

    def committed(self) -> float | None:
        """Note that the commit is durable; return its `seen_at`."""
        in_flight = self._settle()
        self.acked_sequence = in_flight.sequence
        if self._unacked_bytes <= self._limit_bytes:
            self._has_capacity.set()
        if self.received_sequence == in_flight.sequence:
            self._all_committed.set()
        return in_flight.seen_at

    def lost(self) -> None:
        """Release the bytes of the commit that was under way. None of it is acknowledged."""
        if self.in_flight is not None:
            self._settle()

    def close(self) -> None:
        """Release the bytes that are not in flight, and end all waits."""
        in_flight_bytes = 0 if self.in_flight is None else self.in_flight.size_bytes
        self._budget.release(self._unacked_bytes - in_flight_bytes)
        self._unacked_bytes = in_flight_bytes
        self._has_capacity.set()
        self._all_committed.set()

    async def wait_for_capacity(self) -> None:
        """Wait until the agent may send the next append."""
        await self._has_capacity.wait()

    async def wait_until_idle(self) -> None:
        """Wait until all received appends are committed."""
        await self._all_committed.wait()

    def _settle(self) -> InFlight:
        assert self.in_flight is not None
        in_flight, self.in_flight = self.in_flight, None
        self._unacked_bytes -= in_flight.size_bytes
        self._budget.release(in_flight.size_bytes)
        return in_flight
