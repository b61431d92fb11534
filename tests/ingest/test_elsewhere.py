"""Syncs that other server processes ask for, over a real store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any
from uuid import UUID

from tasklogs_server.bus.notes import HeardNote, SyncAnswered, SyncAsked
from tasklogs_server.ingest.elsewhere import SyncsForOthers
from tests.ingest.desk import Desk
from tests.support.fixtures.conditions import until

OTHER = uuid.uuid4()


class OneOther:
    """A bus to one other process. A test says what that process sends."""

    def __init__(self) -> None:
        self.sent: list[SyncAnswered] = []
        self._hearers: list[Callable[[UUID, HeardNote], None]] = []

    def hear(self, listener: Callable[[UUID, HeardNote], None]) -> None:
        self._hearers.append(listener)

    def send(self, process_id: UUID, note: SyncAnswered) -> None:
        assert process_id == OTHER
        self.sent.append(note)

    def ask(self, task: UUID, fence: int) -> None:
        for hearer in self._hearers:
            hearer(OTHER, SyncAsked(1, task, fence, None))

    async def answer(self) -> SyncAnswered:
        await until(lambda: bool(self.sent))
        return self.sent.pop()


def bus_of(desk: Desk) -> OneOther:
    bus: Any = OneOther()
    SyncsForOthers(bus, desk.sessions, sync=desk.syncs.run, recent=desk.syncs.recent_of)
    made: OneOther = bus
    return made


async def test_a_sync_that_is_asked_for_while_its_session_begins_is_done(
    desk: Desk, task: UUID
) -> None:
    """The row of a session is committed some turns of the loop before the session is open."""
    bus = bus_of(desk)
    bus.ask(task, fence=1)
    await asyncio.sleep(0)
    async with desk.agent(task) as agent:
        agent.answers_syncs = True
        answered = await bus.answer()
        assert answered.synced is not None
        assert answered.synced.fence == agent.session.fence


async def test_without_such_a_session_the_answer_says_so(desk: Desk, task: UUID) -> None:
    bus = bus_of(desk)
    bus.ask(task, fence=1)
    assert await bus.answer() == SyncAnswered(1)
    async with desk.agent(task) as agent:
        bus.ask(task, fence=agent.session.fence + 1)
        assert await bus.answer() == SyncAnswered(1)
        assert agent.syncs == []
