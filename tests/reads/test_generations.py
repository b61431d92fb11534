"""Cursors, page tokens and feeds of a history that the store has lost."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2
from tasklogs_server.domain.errors import CursorExpired, StoreUnavailable
from tasklogs_server.reads.tokens import Cursor
from tasklogs_server.store.records import GENERATION_GAP
from tests.reads.followed import World
from tests.reads.test_paging import contents, entries_of, read
from tests.reads.written_log import entry
from tests.store.logs import Connection
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import Server

FORMER = "1/00000001"


async def go_back(sql: Connection, *, entries: int) -> None:
    """Let the store have only the first entries, of a log of one epoch and without parts."""
    await sql.execute("DELETE FROM log_entries WHERE ordinal >= $1", entries)
    await sql.execute(
        "UPDATE log_heads SET generation = $1, entries = $2, revision = $2 + 1, total_rows = $2 + 1"
        ", (tail_id, tail_seconds, tail_nanos, tail_revision)"
        " = (SELECT e.id, e.id, 0, e.revision FROM log_entries e WHERE e.ordinal = $2 - 1)",
        FORMER,
        entries,
    )


async def test_a_cursor_in_a_gap_expires_and_those_at_its_ends_do_not(
    world: World, sql: Connection
) -> None:
    log = world.log
    await log.entries(*(entry(number, str(number)) for number in range(5)), open_epoch=True)
    await go_back(sql, entries=3)  # revision 4
    await log.reopen()
    await log.entries(entry(3, "another 3"), entry(4, "another 4"))
    for lost in (5, 6, GENERATION_GAP + 3, GENERATION_GAP + 7):
        async with world.following(cursor=Cursor(log.task_id, lost)) as reader:
            error = await reader.end()
        assert isinstance(error, CursorExpired), lost
        assert error.oldest == Cursor(log.task_id, 0).encode()
    for kept, count in ((0, 5), (3, 3), (4, 2), (GENERATION_GAP + 4, 2), (GENERATION_GAP + 5, 1)):
        async with world.following(cursor=Cursor(log.task_id, kept)) as reader:
            await reader.heard("caught_up")
            assert len(reader.view.contents()) == count, kept
    async with world.following() as reader:
        await reader.heard("caught_up")
        assert list(reader.view.contents().values()) == ["0", "1", "2", "another 3", "another 4"]


async def test_a_follower_and_a_feed_whose_revision_is_in_a_gap_end(
    world: World, sql: Connection
) -> None:
    log = world.log
    await log.entries(*(entry(number, str(number)) for number in range(5)), open_epoch=True)
    async with world.following() as reader:
        await reader.heard("caught_up")
        await go_back(sql, entries=3)
        await log.reopen()
        await log.entries(*(entry(number, "another") for number in range(3, 9)))
        assert isinstance(await reader.end(), CursorExpired)
    with pytest.raises(CursorExpired):
        await world.follows.lag(log.task_id, 6, ())


async def test_a_change_of_the_generation_ends_all_follows_so_that_their_clients_resume(
    world: World,
) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    current = world.store.generations.current
    async with world.following() as reader:
        await reader.heard("caught_up")
        world.store.generations.observe(FORMER)
        assert isinstance(await reader.end(), StoreUnavailable)
        world.store.generations.observe(current)
        async with world.following(cursor=Cursor(world.log.task_id, 2)) as resumed:
            await resumed.heard("caught_up")


async def test_a_follow_that_began_before_the_change_does_not_continue_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.log.entries(entry(0, "a"), open_epoch=True)
    start = world.changes.start

    async def then_changed(*query: Any) -> Any:
        result = await start(*query)
        world.store.generations.observe(FORMER)
        return result

    monkeypatch.setattr(world.changes, "start", then_changed)
    async with world.following() as reader:
        assert isinstance(await reader.end(), StoreUnavailable)


@pytest.mark.parametrize("regrown", [0, 20])
@pytest.mark.parametrize("types", [[], [types_pb2.TASK_LOG_TYPE_OUTPUT]], ids=["all", "of a type"])
async def test_page_tokens_of_a_lost_history_expire_and_earlier_ones_do_not(
    server: Server, sql: Connection, regrown: int, types: list[types_pb2.TaskLogType.ValueType]
) -> None:
    token = (await server.create_task()).agent_token
    async with ScriptedAgent.connect(server, token) as agent:
        await agent.append(entries_of(4), open_epoch=True)
        await agent.acked()
        kept = await read(server, page_size=1, types=types)
        await agent.append([log_entry(9, "lost")])
        await agent.acked()
        lost = await read(server, page_size=1, types=types)
        await agent.goodbye()
    await go_back(sql, entries=4)
    if regrown:
        async with ScriptedAgent.connect(server, token) as agent:
            await agent.append([log_entry(9 + number, "new") for number in range(regrown)])
            await agent.acked()

    async def next_page(of: pb.GetTaskLogsResponse) -> pb.GetTaskLogsResponse:
        return await read(server, page_size=2, types=types, page_token=of.next_page_token)

    refusal = await refused(next_page(lost))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
    assert contents(await next_page(kept)) == ["1", "2"]
