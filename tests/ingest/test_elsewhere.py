"""Syncs that other server processes ask for, over a real store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tasklogs_server.bus.interface import PeerListener
from tasklogs_server.bus.notes import HeardNote, Note, SessionBegan, SyncAnswered, SyncAsked
from tasklogs_server.domain.errors import AgentUnreachable
from tasklogs_server.domain.synced import StoredState
from tasklogs_server.ingest.elsewhere import Elsewhere, SessionGone, SyncsForOthers
from tasklogs_server.ingest.holders import Holder
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


class SilentOther(OneOther):
    """A bus to another process that was heard lately, and answers nothing: it was killed."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: list[Callable[[Note], None]] = []
        self.reached = {OTHER}

    def listen(self, listener: Callable[[Note], None]) -> None:
        self._listeners.append(listener)

    def watch(self, listener: PeerListener) -> None:
        pass

    def reaches(self, process_id: UUID) -> bool:
        return process_id in self.reached

    def send(self, process_id: UUID, note: object) -> None:
        assert process_id in self.reached

    def began(self, began: SessionBegan, *, here: bool) -> None:
        for listener in self._listeners if here else ():
            listener(began)
        if not here:
            self.hear_of(uuid.uuid4(), began)

    def hear_of(self, sender: UUID, note: HeardNote) -> None:
        for hearer in self._hearers:
            hearer(sender, note)


def silent_other(desk: Desk) -> tuple[Any, Elsewhere]:
    bus: Any = SilentOther()

    async def process_of(_: UUID) -> None:
        return None

    elsewhere = Elsewhere(
        bus, desk.sessions, process_of=process_of, sync_timeout=timedelta(seconds=3600)
    )
    return bus, elsewhere


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


@pytest.mark.parametrize("here", [True, False], ids=["here", "in a third process"])
async def test_a_sync_at_a_killed_process_ends_as_soon_as_a_later_session_begins(
    desk: Desk, task: UUID, here: bool
) -> None:
    bus, elsewhere = silent_other(desk)
    asking = asyncio.create_task(elsewhere.sync(task, Holder(OTHER, 7), None))
    await asyncio.sleep(0)
    for no_later in (SessionBegan(task, 7), SessionBegan(uuid.uuid4(), 8)):
        bus.began(no_later, here=here)
    await asyncio.sleep(0)
    assert not asking.done()
    bus.began(SessionBegan(task, 8), here=here)
    with pytest.raises(AgentUnreachable):
        await asking


async def test_a_note_of_a_session_that_is_not_there_hides_no_other_for_long(
    desk: Desk, task: UUID
) -> None:
    bus, elsewhere = silent_other(desk)
    stranger, named = uuid.uuid4(), Holder(OTHER, 7)
    known = StoredState(fence=7, revision=1, start_build=None, process=OTHER)
    bus.reached |= {stranger}

    # It goes away.
    bus.hear_of(stranger, SessionBegan(task, 2**63 - 1))
    assert elsewhere.holder(task, known) == Holder(stranger, 2**63 - 1)
    bus.reached -= {stranger}
    assert elsewhere.holder(task, known) == named
    bus.reached |= {stranger}
    assert elsewhere.holder(task, known) == named

    # It says that it has no such session.
    bus.hear_of(stranger, SessionBegan(task, 100))
    asking = asyncio.create_task(elsewhere.sync(task, Holder(stranger, 100), None))
    await asyncio.sleep(0)
    bus.hear_of(stranger, SyncAnswered(1))
    with pytest.raises(SessionGone):
        await asking
    assert elsewhere.holder(task, known) == named
