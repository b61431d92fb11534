"""Who else serves, as the log says it: servers that are heard, and servers that are not."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from structlog.testing import capture_logs

from tasklogs_server.bus.payloads import About
from tasklogs_server.bus.unheard import UnheardProcesses
from tests.bus.processes import World, met

HERE, THERE = About("here", 1, "0.1.0"), About("there", 2, "0.2.0")


def found(logged: list[Any]) -> list[tuple[str, int, str]]:
    return [
        (one["host"], one["pid"], one["version"])
        for one in logged
        if one["event"] == "bus.server_found"
    ]


async def test_two_servers_that_meet_name_each_other_once(world: World) -> None:
    with capture_logs() as logged:
        async with world.process(about=HERE) as one, world.process(about=THERE) as other:
            await met(one, other)
            # Another worker of a server that is known.
            async with world.process(about=THERE) as third:
                await met(one, other, third)
    # The worker that came later has not met the first server yet.
    assert sorted(found(logged)) == sorted([HERE, THERE, HERE])


async def test_the_workers_of_one_server_do_not_name_each_other(world: World) -> None:
    with capture_logs() as logged:
        async with world.process(about=HERE) as one, world.process(about=HERE) as other:
            await met(one, other)
    assert found(logged) == []


class Database:
    """The heartbeats that a process finds there."""

    def __init__(self) -> None:
        self.heartbeats: dict[UUID, datetime] = {}

    async def read(self) -> Mapping[UUID, datetime]:
        return dict(self.heartbeats)

    def beat(self, process_id: UUID) -> None:
        last = self.heartbeats.get(process_id, datetime(2026, 1, 1, tzinfo=UTC))
        self.heartbeats[process_id] = last + timedelta(seconds=5)


async def test_a_process_that_lives_and_is_not_heard_is_named_once(world: World) -> None:
    database, stranger, dead = Database(), uuid.uuid4(), uuid.uuid4()
    database.beat(dead)
    async with world.process() as one, world.process() as other:
        await met(one, other)
        looks = UnheardProcesses(one.bus, database.read)
        with capture_logs() as logged:
            for _ in range(4):
                database.beat(stranger)
                database.beat(other.id)
                await looks.look()
    assert [(line["event"], line["process"]) for line in logged] == [
        ("bus.process_unheard", str(stranger))
    ]


async def test_without_a_bus_nobody_is_called_unheard(world: World) -> None:
    database, other = Database(), uuid.uuid4()
    async with world.process() as one:
        looks = UnheardProcesses(one.bus, database.read)
        one.bus._connection_changed(False)
        with capture_logs() as logged:
            for _ in range(3):
                database.beat(other)
                await looks.look()
    assert logged == []
