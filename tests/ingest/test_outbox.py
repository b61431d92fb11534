"""The server's messages on a stream: one slot for each kind, so the memory is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from tasklogs_server.domain.errors import SessionSuperseded
from tasklogs_server.ingest.messages import Ack, Drain, ReportState, ServerEvent, Sync
from tasklogs_server.ingest.outbox import Outbox


async def test_acks_coalesce_to_the_last() -> None:
    outbox = Outbox()
    for sequence in range(1, 1000):
        outbox.ack(sequence)
    assert list(await outbox.next_events()) == [Ack(999)]


async def test_an_ack_is_sent_once() -> None:
    outbox = Outbox()
    outbox.ack(1)
    await outbox.next_events()
    outbox.ack(1)
    outbox.report_state()
    assert list(await outbox.next_events()) == [ReportState()]


async def test_it_waits_while_there_are_no_events() -> None:
    outbox = Outbox()
    taking = asyncio.create_task(outbox.next_events())
    await asyncio.wait([taking], timeout=0.02)
    assert not taking.done()
    outbox.drain(timedelta(seconds=1))
    assert list(await taking) == [Drain(timedelta(seconds=1))]


async def test_a_sync_without_a_waiting_reader_is_not_sent() -> None:
    outbox = Outbox()
    for sync_id in range(1, 100):
        outbox.sync(sync_id)
        if sync_id != 50:
            outbox.forget_sync(sync_id)
    assert list(await outbox.next_events()) == [Sync(50)]


async def test_earlier_events_are_sent_before_the_reason_of_the_end_is_raised() -> None:
    outbox = Outbox()
    outbox.ack(3)
    outbox.close(SessionSuperseded())
    outbox.close(None)  # the first reason counts
    assert list(await outbox.next_events()) == [Ack(3)]
    for _ in range(2):
        with pytest.raises(SessionSuperseded):
            await outbox.next_events()


async def test_an_end_without_an_error_returns_no_events() -> None:
    outbox = Outbox()
    outbox.close(None)
    assert list(await outbox.next_events()) == []


async def test_a_sync_that_is_removed_before_it_is_sent_does_not_end_the_stream() -> None:
    outbox = Outbox()
    outbox.sync(1)
    outbox.forget_sync(1)
    await stays_open(outbox)


async def test_a_sync_that_is_removed_while_the_sender_wakes_does_not_end_the_stream() -> None:
    outbox = Outbox()
    taking = asyncio.create_task(outbox.next_events())
    await asyncio.sleep(0)  # the sender waits
    outbox.sync(1)
    outbox.forget_sync(1)
    await stays_open(outbox, taking)


async def test_an_ack_that_was_sent_before_does_not_end_the_stream() -> None:
    outbox = Outbox()
    outbox.ack(1)
    await outbox.next_events()
    outbox.ack(1)
    await stays_open(outbox, acked=1)


async def stays_open(
    outbox: Outbox, taking: asyncio.Task[Sequence[ServerEvent]] | None = None, *, acked: int = 0
) -> None:
    """Check that the sender gets no empty events, but the next one."""
    taking = taking or asyncio.create_task(outbox.next_events())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not taking.done(), "no events end the stream"
    outbox.ack(acked + 1)
    assert list(await taking) == [Ack(acked + 1)]
