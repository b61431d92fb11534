"""Pages are complete, bounded and stable. Page tokens belong to their request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2
from tasklogs.v1 import types_pb2 as types
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import STOP, TASK, make_active, report_build
from tests.support.fixtures.server import MakeServer, Server

MIB = 1024 * 1024
LARGEST_BYTES = 3 * MIB


async def read(server: Server, task: str = TASK, **fields: Any) -> pb.GetTaskLogsResponse:
    return await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task=task, **fields))


async def pages(server: Server, **fields: Any) -> list[pb.GetTaskLogsResponse]:
    """Read all pages, from the first or from `page_token`."""
    read_so_far = [await read(server, **fields)]
    while token := read_so_far[-1].next_page_token:
        assert len(read_so_far) < 20_000, "the pages do not end"
        read_so_far.append(await read(server, **(fields | {"page_token": token})))
    return read_so_far


def contents(*answers: pb.GetTaskLogsResponse) -> list[str]:
    return [one.content for answer in answers for one in answer.logs]


@asynccontextmanager
async def agent_of(server: Server, *entries: types.TaskLogEntry) -> AsyncIterator[ScriptedAgent]:
    """A task that is PENDING, with these entries."""
    token = (await server.create_task()).agent_token
    async with ScriptedAgent.connect(server, token) as agent:
        await agent.append(open_epoch=True, entries=entries)
        await agent.acked()
        yield agent


def entries_of(count: int) -> list[types.TaskLogEntry]:
    """Entries with gaps between their ids."""
    return [log_entry(2 * number, str(number)) for number in range(count)]


async def test_10_000_entries_and_one_of_a_million_bytes_come_whole_in_bounded_pages(
    server: Server,
) -> None:
    async with agent_of(server) as agent:
        for start in range(0, 10_000, 1000):
            await agent.append(
                entries=[log_entry(n, f"{n} " + "x" * 1995) for n in range(start, start + 1000)]
            )
        await agent.append(entries=[log_entry(10_000, "y" * 1_000_000)])
        await agent.acked()

        answers = await pages(server)

    ids = [one.id for answer in answers for one in answer.logs]
    assert ids == list(range(10_001))
    assert all(content.startswith(f"{n} ") for n, content in enumerate(contents(*answers)[:-1]))
    assert contents(*answers)[-1] == "y" * 1_000_000
    sizes = [answer.ByteSize() for answer in answers]
    assert max(sizes) < LARGEST_BYTES
    assert all(900_000 < size < 1_100_000 for size in sizes[:-2]), sizes
    assert {answer.cursor for answer in answers} == {answers[0].cursor}


async def test_entries_of_1_mib_make_pages_under_3_mib(server: Server) -> None:
    async with agent_of(server, log_entry(0, "small")) as agent:
        for id_ in range(1, 6):
            await agent.append(entries=[log_entry(id_, str(id_) * MIB)])
            await agent.acked()

        answers = await pages(server)

    assert [len(content) for content in contents(*answers)] == [5, *[MIB] * 5]
    assert max(answer.ByteSize() for answer in answers) < LARGEST_BYTES


async def test_a_tail_of_1_mib_in_parts_on_a_full_page_stays_under_3_mib(server: Server) -> None:
    async with agent_of(server, log_entry(0, "x" * 999_000), log_entry(1, "")) as agent:
        grown = 0
        for _ in range(16):
            await agent.append(tail=tail_delta(1, grown, "y" * 65_536))
            grown += 65_536
            await agent.acked()

        answers = await pages(server)

    assert [len(content) for content in contents(*answers)] == [999_000, MIB]
    assert max(answer.ByteSize() for answer in answers) < LARGEST_BYTES


async def test_the_page_setting_bounds_the_pages(make_server: MakeServer) -> None:
    async with make_server(page_bytes=1) as server, agent_of(server, *entries_of(3)):
        assert [contents(answer) for answer in await pages(server)] == [["0"], ["1"], ["2"]]


@pytest.mark.parametrize(
    ("page_size", "sizes"),
    [(0, [1000, 1000, 500]), (1, None), (7, None), (1000, [1000, 1000, 500])]
    + [(size, [1000, 1000, 500]) for size in (1001, 2**31 - 1)],
)
async def test_a_page_has_at_most_page_size_entries_and_1000(
    server: Server, page_size: int, sizes: list[int] | None
) -> None:
    count = 2500 if sizes else 15
    async with agent_of(server, *entries_of(count)):
        answers = await pages(server, page_size=page_size)

    assert contents(*answers) == [str(number) for number in range(count)]
    lengths = [len(answer.logs) for answer in answers]
    assert lengths == sizes if sizes else set(lengths[:-1]) == {page_size}


@pytest.mark.parametrize("tail", [0, 1, 2, 5, 10, 11, 2**31 - 1])
@pytest.mark.parametrize("page_size", [0, 1, 3, 10])
async def test_the_last_n_entries_come_in_pages_too(
    server: Server, tail: int, page_size: int
) -> None:
    async with agent_of(server, *entries_of(10)) as agent:
        await agent.append(tail=tail_delta(18, 1, " grows"))
        await agent.acked()
        answers = await pages(server, tail=tail, page_size=page_size)

    whole = [*map(str, range(9)), "9 grows"]
    assert contents(*answers) == (whole[-tail:] if tail else [])
    assert all(answer.first_id == 0 for answer in answers)


async def test_what_is_appended_between_pages_is_not_in_the_range(server: Server) -> None:
    async with agent_of(server, *entries_of(4)) as agent:
        first = await read(server, page_size=3)
        await agent.append(entries=[log_entry(100, "later"), log_entry(101, "later still")])
        await agent.acked()
        rest = await pages(server, page_size=3, page_token=first.next_page_token)

    assert contents(first, *rest) == ["0", "1", "2", "3"]
    # A follow from the cursor sends what the pages left out.
    assert rest[-1].revision > first.revision
    assert rest[-1].cursor == first.cursor


async def test_a_tail_that_grows_between_pages_is_read_in_its_newer_state_and_revision(
    server: Server,
) -> None:
    async with agent_of(server, *entries_of(4)) as agent:
        first = await read(server, page_size=3)
        await agent.append(tail=tail_delta(6, 1, " and more"))
        await agent.acked()
        [last] = await pages(server, page_size=3, page_token=first.next_page_token)

    assert contents(last) == ["3 and more"]
    assert last.logs[0].revision > first.revision
    assert last.cursor == first.cursor


async def test_a_tail_that_is_withdrawn_between_pages_is_left_out(server: Server) -> None:
    async with agent_of(server, *entries_of(4)) as agent:
        first = await read(server, page_size=2)
        await agent.append(withdraw_tail=True)
        await agent.acked()
        rest = await pages(server, page_size=2, page_token=first.next_page_token)

    assert contents(first, *rest) == ["0", "1", "2"]


async def test_a_page_of_only_the_withdrawn_tail_is_empty_and_the_last(
    server: Server,
) -> None:
    async with agent_of(server, *entries_of(3)) as agent:
        first = await read(server, page_size=2)
        await agent.append(withdraw_tail=True)
        await agent.acked()
        [last] = await pages(server, page_size=2, page_token=first.next_page_token)

    assert contents(last) == []
    assert last.next_page_token == ""


async def test_an_epoch_that_opens_between_pages_changes_none_of_them(server: Server) -> None:
    async with agent_of(server, *entries_of(4)) as agent:
        await agent.append(tail=tail_delta(6, 1, "!"))
        await agent.acked()
        first = await read(server, page_size=3)
        await agent.append(open_epoch=True, entries=[log_entry(0, "another")])
        await agent.acked()
        [last] = await pages(server, page_size=3, page_token=first.next_page_token)

        assert contents(last) == ["3!"]
        assert (last.epoch, last.first_id) == (1, 0)
        assert contents(await read(server)) == ["another"]


async def test_later_pages_neither_sync_nor_refuse_and_repeat_the_fields_of_the_first(
    server: Server,
) -> None:
    async with agent_of(server, *entries_of(4)) as agent:
        await make_active(server)
        agent.answer_syncs()
        first = await read(server, page_size=1)
        assert len(agent.syncs) == 1

        await report_build(server, 2, job_status=types.JOB_STATUS_FAILED)
        assert (await refused(read(server))).reason == "TASK_STATE_CONFLICT"
        rest = await pages(server, page_size=1, page_token=first.next_page_token)

        assert len(agent.syncs) == 1
    assert contents(first, *rest) == ["0", "1", "2", "3"]
    for page in rest:
        assert page.HasField("snapshot")
        assert page.snapshot is False
        assert page.status == types.TASK_STATUS_ACTIVE
        assert page.snapshot_at == first.snapshot_at
        assert page.epoch == first.epoch
        assert page.cursor == first.cursor


async def test_every_page_of_a_snapshot_says_that_it_is_one(server: Server) -> None:
    async with agent_of(server, *entries_of(3)) as agent:
        await report_build(server, transition=STOP)
        await agent.goodbye()
        first = await read(server, page_size=2)
        await report_build(server, 2)
        [last] = await pages(server, page_size=2, page_token=first.next_page_token)

    assert first.snapshot
    assert last.snapshot
    assert (last.status, last.snapshot_at) == (types.TASK_STATUS_PAUSED, first.snapshot_at)


OTHER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "another source": {"source": pb.LOG_SOURCE_SNAPSHOT},
    "a tail": {"tail": 4},
    "a tail of 0": {"tail": 0},
    "an epoch": {"epoch": 1},
    "max_staleness": {"max_staleness": Duration(seconds=1)},
    "types": {"types": [types.TASK_LOG_TYPE_OUTPUT]},
}


@pytest.mark.parametrize("changed", OTHER_ARGUMENTS.values(), ids=OTHER_ARGUMENTS.keys())
async def test_a_token_is_valid_only_with_the_arguments_that_it_was_made_for(
    server: Server, changed: dict[str, Any]
) -> None:
    async with agent_of(server, *entries_of(4)):
        token = (await read(server, page_size=2)).next_page_token

        refusal = await refused(read(server, page_token=token, **changed))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.fields == ["page_token"]

        # The page size may change.
        assert contents(await read(server, page_size=1, page_token=token)) == ["2"]


async def test_the_order_and_repeats_of_types_do_not_matter_to_a_token(server: Server) -> None:
    input_, output = types.TASK_LOG_TYPE_INPUT, types.TASK_LOG_TYPE_OUTPUT
    mixed = [log_entry(id_, str(id_), type_=input_ if id_ % 3 else output) for id_ in range(9)]
    async with agent_of(server, *mixed):
        first = await read(server, page_size=2, types=[output, input_, input_])
        same = await read(
            server, page_size=2, types=[input_, output], page_token=first.next_page_token
        )
        assert contents(first, same) == ["0", "1", "2", "3"]
        refusal = await refused(read(server, page_token=first.next_page_token, types=[input_]))
        assert refusal.fields == ["page_token"]
        # Of all types that exist now: not the same as no filter, which has later types, too.
        refusal = await refused(read(server, page_token=first.next_page_token))
        assert refusal.fields == ["page_token"]


async def test_pages_of_some_types_have_the_fields_of_pages_of_all(server: Server) -> None:
    input_, output = types.TASK_LOG_TYPE_INPUT, types.TASK_LOG_TYPE_OUTPUT
    mixed = [log_entry(2 * n, str(n), type_=output if n % 4 else input_) for n in range(12)]
    async with agent_of(server, *mixed) as agent:
        await agent.append(tail=tail_delta(22, 2, "+"))
        await agent.acked()
        everything = await read(server)
        inputs = await pages(server, page_size=2, types=[input_])
        outputs = await pages(server, tail=4, types=[output], page_size=3)
    assert [[one.content for one in page.logs] for page in inputs] == [["0", "4"], ["8"]]
    assert [[one.content for one in page.logs] for page in outputs] == [["7", "9", "10"], ["11+"]]
    for page in (*inputs, *outputs):
        for field in ("snapshot", "snapshot_at", "status", "epoch", "revision", "cursor"):
            assert getattr(page, field) == getattr(everything, field), field
        assert page.first_id == everything.first_id


async def test_a_token_of_another_task_is_refused(server: Server) -> None:
    await server.create_task("other")
    async with agent_of(server, *entries_of(4)):
        token = (await read(server, page_size=2)).next_page_token

        refusal = await refused(read(server, "local/other", page_token=token))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["page_token"]


async def test_a_broken_token_is_refused(server: Server) -> None:
    async with agent_of(server, *entries_of(4)):
        first = await read(server, page_size=2)
        token = first.next_page_token
        flipped = token[:20] + ("A" if token[20] != "A" else "B") + token[21:]

        for broken in (
            token[:-1],
            token[: len(token) // 2],
            token[1:],
            token + "A",
            flipped,
            token[::-1],
            first.cursor,
            "=",
            "A",
            "\u00e9",
            "A" * 100_000,
        ):
            refusal = await refused(read(server, page_size=2, page_token=broken))
            assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT, broken[:40]
            assert refusal.fields == ["page_token"], broken[:40]


async def test_a_token_of_a_deleted_task_is_refused_for_another_of_the_same_name(
    server: Server,
) -> None:
    async with agent_of(server, *entries_of(4)):
        token = (await read(server, page_size=2)).next_page_token
        await server.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task=TASK))
        gone = await refused(read(server, page_size=2, page_token=token))
        assert gone.code is grpc.StatusCode.NOT_FOUND

    async with agent_of(server, *entries_of(4)):
        refusal = await refused(read(server, page_size=2, page_token=token))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")


async def test_pages_continue_after_a_restart_of_the_server(make_server: MakeServer) -> None:
    async with make_server() as server, agent_of(server, *entries_of(4)):
        first = await read(server, page_size=3)
    async with make_server() as server:
        [last] = await pages(server, page_size=3, page_token=first.next_page_token)

    assert contents(first, last) == ["0", "1", "2", "3"]
