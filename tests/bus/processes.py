"""Processes on one bus, as a test sees them: what each hears, and what happens to the others."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tasklogs_server.bus.interface import PeerEvent
from tasklogs_server.bus.notes import HeardNote, SessionDoubted
from tasklogs_server.bus.payloads import About
from tasklogs_server.bus.shared import SharedBus
from tasklogs_server.bus.transport import Outgoing, Receiver, Transport
from tests.support.fixtures.conditions import until


class Faults:
    """A transport with faults in what it sends."""

    def __init__(self, transport: Transport) -> None:
        self.max_payload_bytes = transport.max_payload_bytes
        self.transport = transport
        self.loses: Callable[[Outgoing], bool] = lambda _: False
        """Which payloads are lost, although `send` succeeds."""
        self.repeats = False
        """Whether each payload is sent twice."""
        self.is_frozen = False
        """Whether nothing is sent, and `send` does not return."""
        self.sent: list[Outgoing] = []

    async def run(self, process_id: UUID, receiver: Receiver) -> None:
        await self.transport.run(process_id, receiver)

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if self.is_frozen:
            await asyncio.Event().wait()
        self.sent += messages
        kept = [one for one in messages if not self.loses(one)]
        if kept:
            await self.transport.send([*kept, *kept] if self.repeats else kept)


@dataclass
class Process:
    """One process, and what it heard."""

    bus: SharedBus
    faults: Faults
    heard: list[tuple[UUID, HeardNote]] = field(default_factory=list)
    events: list[tuple[UUID | None, PeerEvent]] = field(default_factory=list)

    @property
    def id(self) -> UUID:
        return self.bus.process_id

    @property
    def notes(self) -> list[HeardNote]:
        return [note for _, note in self.heard]

    async def hears(self, *notes: HeardNote) -> None:
        """Wait until these notes, and no others, were heard in this order."""
        await until(lambda: len(self.heard) >= len(notes))
        assert self.notes == list(notes)

    async def has_heard(self, note: HeardNote) -> None:
        """Wait until this note, and perhaps others, was heard."""
        await until(lambda: note in self.notes)

    async def sees(self, event: PeerEvent, of: Process) -> None:
        await until(lambda: (of.id, event) in self.events)


MakeTransport = Callable[[], Transport]


@dataclass
class World:
    """Where processes meet. `cut` breaks the connection of a process, as the medium would."""

    transport: MakeTransport
    cut: Callable[[Process], Awaitable[None]]

    @asynccontextmanager
    async def process(
        self, *, waits: bool = True, about: About | None = None
    ) -> AsyncIterator[Process]:
        """Run a process. `waits`: until notes of others arrive."""
        faults = Faults(self.transport())
        bus = SharedBus(uuid.uuid4(), faults, about)
        process = Process(bus, faults)
        bus.hear(lambda sender, note: process.heard.append((sender, note)))
        bus.watch(lambda of, event: process.events.append((of, event)))
        running = asyncio.create_task(bus.run())
        try:
            if waits:
                await bus.joined()
            yield process
            assert not running.done(), running.exception()
        finally:
            running.cancel()
            await asyncio.wait([running])

    @asynccontextmanager
    async def two(self) -> AsyncIterator[tuple[Process, Process]]:
        """Yield two processes that have met, and know what they follow: nothing.

        What happened when they met is forgotten: that depends on whether a beat came first.
        """
        async with self.process() as one, self.process() as other:
            await met(one, other)
            await quiet(one, other)
            yield one, other


async def met(*processes: Process) -> None:
    """Wait until all of them reach each other, and say what they follow."""
    for one in processes:
        for other in processes:
            if one is not other:
                await until(lambda one=one, other=other: knows(one, other))  # type: ignore[misc]


async def quiet(one: Process, other: Process) -> None:
    """Wait until the two have answered all that they said when they met, and forget that."""
    for sender, receiver in [(one, other), (other, one)] * 2:
        last = SessionDoubted(uuid.uuid4())
        sender.bus.send(receiver.id, last)
        await receiver.has_heard(last)
    await until(lambda: not one.bus._due_gaps and not other.bus._due_gaps)
    for process in (one, other):
        process.heard.clear()
        process.events.clear()


def knows(one: Process, other: Process) -> bool:
    """Whether `one` reaches `other` and knows which tasks that follows."""
    interests: Any = one.bus._interests
    return one.bus.reaches(other.id) and other.id not in interests._all
