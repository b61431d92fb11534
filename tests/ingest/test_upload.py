"""Uploads of whole conversations: the same store and the same rules of epochs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from tasklogs.log.entry import Entry, Names
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs_server.domain.errors import (
    LimitExceeded,
    SessionOpen,
    SessionSuperseded,
    TaskNotFound,
    Unauthenticated,
)
from tasklogs_server.domain.names import TaskId
from tasklogs_server.ingest.upload import Stored
from tasklogs_server.store.log_reads import PageQuery
from tests.ingest.desk import Desk, entry
from tests.store.logs import Connection, decoded, new_task, waits_for_a_lock
from tests.support.fixtures.conditions import until

A, B, C = entry(0, "a", seconds=10), entry(1, "b", seconds=20), entry(2, "c", seconds=30)


async def epochs(desk: Desk, task: UUID) -> list[list[str]]:
    head = (await desk.store.tasks.get(task)).head
    return [
        [
            one.content
            for one in decoded(await desk.store.reads.page(TaskId(task), PageQuery(epoch=number)))
        ]
        for number in range(1, head.epoch + 1)
    ]


async def test_the_first_upload_becomes_the_log(desk: Desk, task: UUID) -> None:
    stored = await desk.uploads.upload(task, [A, B])
    assert (stored.revision, stored.snapshot_at) == (3, desk.clock.now)
    assert await epochs(desk, task) == [["a", "b"]]


NOTHING_NEW: dict[str, Sequence[Entry]] = {
    "the same list": [A, B, C],
    "a prefix": [A],
    "a prefix up to the tail": [A, B],
    "an empty list": [],
    "the tail at an earlier moment": [A, B, replace(C, content=b"", time=B.time)],
}


@pytest.mark.parametrize("entries", NOTHING_NEW.values(), ids=NOTHING_NEW.keys())
async def test_an_upload_of_what_is_stored_changes_nothing(
    desk: Desk, task: UUID, entries: Sequence[Entry]
) -> None:
    stored = await desk.uploads.upload(task, [A, B, C])
    desk.clock.advance(5)
    again = await desk.uploads.upload(task, entries)
    assert again.revision == stored.revision
    assert await epochs(desk, task) == [["a", "b", "c"]]


async def test_an_upload_of_stored_entries_with_names_changes_nothing(
    desk: Desk, task: UUID
) -> None:
    named = [replace(one, names=Names(f"m{one.id}", "bash", "")) for one in (A, B, C)]
    stored = await desk.uploads.upload(task, named)
    for again in (named, named[:2], named[:1], [*named[:2], replace(named[2], content=b"")]):
        assert (await desk.uploads.upload(task, again)).revision == stored.revision
    grown = [*named[:2], replace(named[2], content=b"cc")]
    assert (await desk.uploads.upload(task, grown)).revision == stored.revision + 1
    read = decoded(await desk.store.reads.page(TaskId(task), PageQuery()))
    assert [(one.source_id, one.name, one.call_id) for one in read] == [one.names for one in grown]
    assert len(await epochs(desk, task)) == 1


async def test_an_upload_that_continues_writes_only_what_is_new(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    await desk.uploads.upload(task, [A, B])
    first = await sql.fetchval("SELECT xmin::text FROM log_entries WHERE ordinal = 0")
    grown = replace(B, content=b"bb", time=C.time)
    stored = await desk.uploads.upload(task, [A, grown, C])
    assert stored.revision == 5
    assert await epochs(desk, task) == [["a", "bb", "c"]]
    assert await sql.fetchval("SELECT xmin::text FROM log_entries WHERE ordinal = 0") == first


OTHER: dict[str, Sequence[Entry]] = {
    "another sealed entry": [replace(A, content=b"z"), B, C],
    "the same words, but later": [replace(A, time=C.time)],
    "a rewritten tail of a later time": [A, replace(B, content=b"z", time=C.time)],
    "a tail with another name": [A, replace(B, names=Names(name="m"))],
    "a sealed entry with another name": [replace(A, names=Names(source_id="m")), B],
    "a prefix with another name": [replace(A, names=Names(call_id="m"))],
}


@pytest.mark.parametrize("entries", OTHER.values(), ids=OTHER.keys())
async def test_another_conversation_opens_an_epoch(
    desk: Desk, task: UUID, entries: Sequence[Entry]
) -> None:
    await desk.uploads.upload(task, [A, B])
    await desk.uploads.upload(task, entries)
    assert await epochs(desk, task) == [
        ["a", "b"],
        [one.content.decode() for one in entries],
    ]


async def test_an_upload_beside_an_open_session_is_refused(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    async with desk.agent(task) as agent:
        with pytest.raises(SessionOpen):
            await desk.uploads.upload(task, [A])
        await agent.append([A], open_epoch=True)
        await agent.all_acked()  # its fence is still valid
    await desk.uploads.upload(task, [A, B])
    assert await epochs(desk, task) == [["a", "b"]]


async def test_an_upload_whose_token_is_rotated_meanwhile_stores_nothing(
    desk: Desk, task: UUID
) -> None:
    async def rotated_before() -> None:
        raise Unauthenticated("the agent token was rotated")

    async def rotated_after() -> None:
        await desk.store.tasks.rotate_token(task, b"another")

    with pytest.raises(Unauthenticated):
        await desk.uploads.upload(task, [A], still_opens=rotated_before)
    with pytest.raises(SessionSuperseded):
        await desk.uploads.upload(task, [A], still_opens=rotated_after)
    assert await epochs(desk, task) == []


async def test_of_two_uploads_at_once_the_higher_fence_wins(
    desk: Desk, task: UUID, sql: Connection
) -> None:
    async with sql.transaction():
        await sql.execute("LOCK TABLE log_entries IN EXCLUSIVE MODE")
        first = asyncio.create_task(desk.uploads.upload(task, [A]))
        await until(lambda: waits_for_a_lock(sql))
        second = asyncio.create_task(desk.uploads.upload(task, [A, B]))
        await asyncio.wait([second], timeout=0.02)
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert not isinstance(results[1], BaseException)
    assert isinstance(results[0], SessionSuperseded) or await epochs(desk, task) == [["a", "b"]]


async def test_an_uploaded_entry_past_the_limit_is_truncated_as_an_agent_would(
    desk: Desk, task: UUID
) -> None:
    long = replace(A, content=b"x" * (MAX_CONTENT_BYTES + 1), names=Names(name="bash"))
    stored = await desk.uploads.upload(task, [long])
    page = await desk.store.reads.page(TaskId(task), PageQuery())
    (one,) = decoded(page)
    assert (one.dropped_bytes, len(one.content)) == (131072, MAX_CONTENT_BYTES + 1 - 131072)
    assert one.name == "bash"
    assert await desk.uploads.upload(task, [long]) == stored


async def test_too_many_new_epochs_are_refused(desk: Desk, task: UUID) -> None:
    for number in range(60):
        await desk.uploads.upload(task, [entry(0, f"conversation {number}", seconds=number)])
    with pytest.raises(LimitExceeded):
        await desk.uploads.upload(task, [entry(0, "one more", seconds=99)])


async def test_an_upload_to_a_deleted_task_is_not_found(desk: Desk, task: UUID) -> None:
    await desk.store.tasks.delete(task)
    with pytest.raises(TaskNotFound):
        await desk.uploads.upload(task, [A])


async def test_an_upload_that_waited_for_its_turn_is_of_the_time_at_which_it_was_received(
    desk: Desk, task: UUID
) -> None:
    others = [await new_task(desk.store, f"other-{index}") for index in range(2)]
    received_at = desk.clock.now

    async def upload() -> Stored:
        async with desk.uploads.turn(task, 10) as turn:
            return await desk.uploads.upload(task, [A], turn=turn)

    async with desk.uploads.turn(others[0], 10), desk.uploads.turn(others[1], 10):
        uploading = asyncio.create_task(upload())
        await asyncio.sleep(0)
        desk.clock.advance(5)
    assert (await uploading).snapshot_at == received_at


async def test_a_task_has_one_upload_at_a_time(desk: Desk, task: UUID) -> None:
    async with desk.uploads.turn(task, 10):
        with pytest.raises(LimitExceeded, match="another upload is under way"):
            async with desk.uploads.turn(task, 10):
                pass
        with pytest.raises(LimitExceeded), desk.uploads.in_parts(task):
            pass
    with desk.uploads.in_parts(task), pytest.raises(LimitExceeded):
        async with desk.uploads.turn(task, 10):
            pass
