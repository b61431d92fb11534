"""The messages that the server has for an agent stream, in bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from tasklogs_server.ingest.messages import Ack, Drain, ReportState, ServerEvent, Sync


class Outbox:
    """The server's side of a stream. Events wait here until they can be written to the stream.

    Each kind has one slot. Of several acks only the last is sent. One sync is under way, because
    readers share it. The next one begins after it.
    """

    def __init__(self) -> None:
        self._ack = 0
        self._acked = 0
        self._syncs: dict[int, Sync] = {}
        self._report_state = False
        self._drain: Drain | None = None
        self._error: Exception | None = None
        self._closed = False
        self._wake = asyncio.Event()

    def ack(self, sequence: int) -> None:
        """Acknowledge everything up to `sequence`."""
        self._ack = sequence
        self._wake.set()

    def sync(self, sync_id: int, traceparent: str = "") -> None:
        """Ask the agent to bring the store up to date."""
        self._syncs[sync_id] = Sync(sync_id, traceparent)
        self._wake.set()

    def forget_sync(self, sync_id: int) -> None:
        """Do not send this sync any more: no reader waits for it."""
        self._syncs.pop(sync_id, None)

    def report_state(self) -> None:
        """Ask the agent for its lifecycle and health."""
        self._report_state = True
        self._wake.set()

    def drain(self, retry_after: timedelta) -> None:
        """Ask the agent to disconnect, and to connect again after `retry_after`."""
        self._drain = Drain(retry_after)
        self._wake.set()

    def close(self, error: Exception | None = None) -> None:
        """End the stream after everything before this is sent. Only the first reason counts."""
        if not self._closed:
            self._closed = True
            self._error = error
            self._wake.set()

    async def next_events(self) -> Sequence[ServerEvent]:
        """Wait for events and return them. Empty: the stream ends without an error.

        Raises the error that the stream ends with.
        """
        while True:
            await self._wake.wait()
            events = self._take()
            if not self._closed:
                self._wake.clear()
            elif not events and self._error is not None:
                raise self._error
            # What woke the sender may have been removed meanwhile. No events would end the stream.
            if events or self._closed:
                return events

    def _take(self) -> Sequence[ServerEvent]:
        events: list[ServerEvent] = []
        if self._ack > self._acked:
            events.append(Ack(self._ack))
            self._acked = self._ack
        events += self._syncs.values()
        self._syncs.clear()
        if self._report_state:
            events.append(ReportState())
            self._report_state = False
        if self._drain is not None:
            events.append(self._drain)
            self._drain = None
        return events
