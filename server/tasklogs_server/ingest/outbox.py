"""What the server has to say on an agent stream, one place for each kind: it cannot pile up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from tasklogs_server.ingest.messages import Ack, Drain, ReportState, ServerEvent, Sync


class Outbox:
    """The server's side of a stream: it gathers until the writer comes for it.

    Acks coalesce to the last; at most two syncs are under way by the rule of sharing.
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
        """Say that everything up to `sequence` is committed."""
        self._ack = sequence
        self._wake.set()

    def sync(self, sync_id: int, traceparent: str = "") -> None:
        """Ask the agent to bring the store up to date."""
        self._syncs[sync_id] = Sync(sync_id, traceparent)
        self._wake.set()

    def forget_sync(self, sync_id: int) -> None:
        """Nobody waits for this sync any more: if it was not sent yet, it is not."""
        self._syncs.pop(sync_id, None)

    def report_state(self) -> None:
        """Ask the agent for its lifecycle and health."""
        self._report_state = True
        self._wake.set()

    def drain(self, retry_after: timedelta) -> None:
        """Ask the agent to go elsewhere."""
        self._drain = Drain(retry_after)
        self._wake.set()

    def close(self, error: Exception | None = None) -> None:
        """End the stream, after all that was said before; the first reason counts."""
        if not self._closed:
            self._closed = True
            self._error = error
            self._wake.set()

    async def take(self) -> Sequence[ServerEvent]:
        """Wait for something to say and take it; empty when the stream is to end in good order.

        Raises the error that the stream is to end with.
        """
        await self._wake.wait()
        events = self._gathered()
        if events or not self._closed:
            return events
        if self._error is not None:
            raise self._error
        return ()

    def _gathered(self) -> Sequence[ServerEvent]:
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
        if not self._closed:
            self._wake.clear()
        return events
