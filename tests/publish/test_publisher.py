"""A program that publishes, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from tasklogs import (
    CaughtUp,
    EntriesChanged,
    Entry,
    EntrySealed,
    Publisher,
    PublisherClosed,
    TaskLogsClient,
    TaskLogType,
    TaskStatus,
)
from tasklogs.client.entry import LogEntry
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import MakeServer, Server

SOON = timedelta(seconds=DEADLINE_SECONDS)


@pytest.fixture
async def server(make_server: MakeServer) -> AsyncIterator[Server]:
    async with make_server() as running:
        yield running


def publisher(server: Server, token: str, **options: object) -> Publisher:
    options = {"connect_timeout": SOON, "close_timeout": SOON, **options}
    return Publisher(server.address, token=token, **options)  # type: ignore[arg-type]


async def entries(server: Server, epoch: int | None = None) -> list[LogEntry]:
    async with TaskLogsClient(server.address, timeout=SOON) as client:
        return await (await client.get("local/demo", epoch=epoch)).all()


async def contents(server: Server, epoch: int | None = None) -> list[str]:
    return [entry.content for entry in await entries(server, epoch)]


async def test_what_is_flushed_is_stored(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    async with publisher(server, made.agent_token) as log:
        await log.append(Entry.input("Why is the sky blue?"))
        answer = await log.begin(Entry.output())
        for text in ("Because ", "of ", "Rayleigh."):
            await answer.extend(text)
        await log.flush()
        assert await contents(server) == ["Why is the sky blue?", "Because of Rayleigh."]


async def test_a_live_read_has_what_was_written_before_it_without_a_flush(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    async with publisher(server, made.agent_token) as log:
        answer = await log.begin(Entry.output())
        written = ""
        for number in range(30):
            await answer.extend(f"{number} ")
            written += f"{number} "
            if number % 10 == 9:
                answer, written = await log.begin(Entry.output()), ""
            assert (await contents(server))[-1] == written


async def test_an_entry_arrives_as_it_was_written(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    moment = datetime(2026, 11, 30, 12, 0, 0, 123456, UTC)
    async with publisher(server, made.agent_token) as log:
        await log.append(Entry.input("x\x00\ud800 ü 漢", time=moment).with_source_id("a-1"))
        await log.append(Entry.tool_call("sh", '{"cmd": "ls"}', call_id="c1"))
        await log.append(Entry.tool_result("sh", "a b", call_id="c1"))
        await log.append(Entry.notice("compacted"))
        await log.flush()
        said, call, result, notice = await entries(server)
    assert (said.content, said.time, said.source_id) == ("x\x00\ufffd ü 漢", moment, "a-1")
    assert (call.type, call.name, call.call_id) == (TaskLogType.TOOL_CALL, "sh", "c1")
    assert (result.type, result.name, result.call_id) == (TaskLogType.TOOL_RESULT, "sh", "c1")
    assert notice.type is TaskLogType.NOTICE
    assert [one.id for one in (said, call, result, notice)] == [0, 1, 2, 3]


async def test_a_sealed_entry_does_not_change(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    async with publisher(server, made.agent_token) as log:
        first = await log.begin(Entry.output("first"))
        await log.append(Entry.output("second"))
        with pytest.raises(EntrySealed):
            await first.extend(" more")
        with pytest.raises(EntrySealed):
            await first.replace("other")


async def test_the_last_entry_can_be_replaced_by_a_shorter_one(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    async with publisher(server, made.agent_token) as log:
        answer = await log.begin(Entry.output("a long draft"))
        await log.flush()
        await answer.replace("done")
        await log.flush()
        assert await contents(server) == ["done"]


async def test_leaving_stores_everything_and_pauses_the_task(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    async with publisher(server, made.agent_token) as log:
        for number in range(500):
            await log.append(Entry.output(str(number)))
    async with TaskLogsClient(server.address, timeout=SOON) as client:
        read = await client.get("local/demo")
        assert (read.snapshot, read.status) == (True, TaskStatus.PAUSED)
        assert [one.content for one in await read.all()] == [str(n) for n in range(500)]
    with pytest.raises(PublisherClosed):
        await log.append(Entry.output("late"))


async def test_another_run_is_another_epoch_unless_it_resumes(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    for text in ("one", "two"):
        async with publisher(server, made.agent_token) as log:
            await log.append(Entry.output(text).with_source_id(text))
    async with publisher(server, made.agent_token, resume=True) as log:
        stored = log.stored
        assert stored is not None
        assert (stored.epoch, stored.entries, stored.last_source_id) == (2, 1, "two")
        await log.append(Entry.output("three"))
        await log.flush()
        await log.begin_epoch()
        await log.append(Entry.output("four"))
    assert await contents(server, 1) == ["one"]
    assert await contents(server, 2) == ["two", "three"]
    assert await contents(server, 3) == ["four"]
    assert await contents(server) == ["four"]


async def test_a_publisher_that_writes_nothing_changes_nothing(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    async with publisher(server, made.agent_token) as log:
        await log.append(Entry.output("kept"))
    async with publisher(server, made.agent_token) as log:
        await log.flush()
    assert await contents(server) == ["kept"]


async def test_epochs_that_follow_at_once_are_all_stored(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    async with publisher(server, made.agent_token) as log:
        for number in range(5):
            await log.begin_epoch()
            await log.append(Entry.output("the same"))
            await log.append(Entry.output(f"{number}"))
        await log.flush()
    for number in range(5):
        assert await contents(server, number + 1) == ["the same", f"{number}"]


async def test_an_entry_past_its_limit_keeps_its_end(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    async with publisher(server, made.agent_token) as log:
        answer = await log.begin(Entry.output())
        for number in range(3000):
            await answer.extend(f"{number:>1000}")
        await log.flush()
        (entry,) = await entries(server)
    whole = "".join(f"{number:>1000}" for number in range(3000))
    assert entry.dropped_bytes + len(entry.content) == len(whole)
    assert whole.endswith(entry.content)
    assert len(entry.content) > 800_000


async def test_a_follower_sees_each_entry_once_it_is_written(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    async with (
        publisher(server, made.agent_token) as log,
        TaskLogsClient(server.address, timeout=SOON) as client,
        client.follow("local/demo") as follow,
        asyncio.timeout(DEADLINE_SECONDS),
    ):
        async for event in follow:
            if isinstance(event, CaughtUp):
                break
        for number in range(20):
            await log.append(Entry.output(f"{number}"))
            async for event in follow:
                if isinstance(event, EntriesChanged):
                    assert [one.entry.content for one in event.changes] == [f"{number}"]
                    break
