"""Live reads: their content, how long they wait, and their errors."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tasklogs.v1 import task_agents_pb2, tasks_pb2, types_pb2
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.store.log_reads import LogPage
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import STOP, TASK, make_active, report_build
from tests.support.fixtures.server import MakeServer, Server


async def read(
    server: Server, *, task: str = TASK, timeout: float = DEADLINE_SECONDS, **fields: Any
) -> pb.GetTaskLogsResponse:
    return await server.logs.GetTaskLogs(
        pb.GetTaskLogsRequest(task=task, **fields), timeout=timeout
    )


@asynccontextmanager
async def active(server: Server, name: str = "demo") -> AsyncIterator[ScriptedAgent]:
    """An ACTIVE task whose agent holds one entry and answers nothing by itself."""
    token = (await server.create_task(name)).agent_token
    await make_active(server, task=f"local/{name}")
    async with ScriptedAgent.connect(server, token) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "hello")])
        await agent.acked()
        yield agent


async def test_a_live_read_has_what_the_agent_appends_for_its_sync(server: Server) -> None:
    async with active(server) as agent:

        async def answer(sync: task_agents_pb2.Sync) -> None:
            await agent.append(tail=tail_delta(0, 5, ", world"))
            await agent.append(entries=[log_entry(1, "just now")])
            await agent.sync_done(sync.id)

        agent.answer_syncs(answer)

        assert [one.content for one in (await read(server)).logs] == ["hello, world", "just now"]


async def test_a_live_read_of_some_types_has_those_that_the_sync_brings(server: Server) -> None:
    call, output = types_pb2.TASK_LOG_TYPE_TOOL_CALL, types_pb2.TASK_LOG_TYPE_OUTPUT
    newer = iter([log_entry(1, "ls", type_=call), log_entry(2, "files", type_=output)])
    async with active(server) as agent:

        async def answer(sync: task_agents_pb2.Sync) -> None:
            if (one := next(newer, None)) is not None:
                await agent.append(entries=[one])
            await agent.sync_done(sync.id)

        agent.answer_syncs(answer)

        # All pages may be in memory: of all types, and of each filter.
        seen = [
            [one.content for one in (await read(server, types=types)).logs]
            for types in ([call], [call], [output], [], [call], [output, call])
        ]

    assert seen[:2] == [["ls"], ["ls"]]
    assert seen[2:] == [["hello", "files"], ["hello", "ls", "files"], ["ls"], seen[3]]


async def test_readers_who_come_while_a_sync_is_under_way_wait_for_the_next_one(
    server: Server,
) -> None:
    async with active(server) as agent:
        first = asyncio.create_task(read(server))
        await agent.heard(lambda: len(agent.syncs) == 1)
        later = [asyncio.create_task(read(server)) for _ in range(20)]
        # They wait for a sync that begins after their calls, not for the first one.
        await agent.sync_done(agent.syncs[0].id)
        assert not (await first).snapshot
        await agent.heard(lambda: len(agent.syncs) == 2)
        await agent.append(entries=[log_entry(1, "since")])
        agent.answer_syncs()
        await agent.sync_done(agent.syncs[1].id)

        for reading in later:
            assert [one.content for one in (await reading).logs] == ["hello", "since"]


async def test_a_read_that_waits_for_its_agent_holds_no_page(server: Server) -> None:
    async with active(server) as agent:
        reading = asyncio.create_task(read(server))
        await agent.heard(lambda: len(agent.syncs) == 1)

        gc.collect()
        assert not any(isinstance(one, LogPage) for one in gc.get_objects())

        await agent.sync_done(agent.syncs[0].id)
        assert [one.content for one in (await reading).logs] == ["hello"]


async def test_no_agent_within_agent_wait_is_unreachable_and_says_when_to_try_again(
    make_server: MakeServer,
) -> None:
    async with make_server(agent_wait=timedelta(seconds=0.2)) as server:
        await server.create_task()
        await make_active(server)

        refusal = await refused(read(server))

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == "AGENT_UNREACHABLE"
    assert refusal.retry_seconds is not None
    assert refusal.retry_seconds > 0
    assert "0.2 s" in refusal.message


@pytest.mark.parametrize("timeout", [0.5, 0.3])
async def test_a_caller_with_less_time_is_answered_before_its_deadline(
    server: Server, timeout: float
) -> None:
    await server.create_task()
    await make_active(server)

    refusal = await refused(read(server, timeout=timeout))

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == "AGENT_UNREACHABLE"
    assert refusal.retry_seconds is not None


async def test_an_agent_that_comes_within_agent_wait_answers_the_read(server: Server) -> None:
    token = (await server.create_task()).agent_token
    await make_active(server)
    reading = asyncio.create_task(read(server))

    async with ScriptedAgent.connect(server, token) as agent:
        agent.answer_syncs()
        response = await reading

    assert not response.snapshot


async def test_if_the_agent_vanishes_during_a_sync_the_read_waits_for_it_again(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    await make_active(server)
    async with ScriptedAgent.connect(server, token) as agent:
        reading = asyncio.create_task(read(server))
        await agent.heard(lambda: bool(agent.syncs))
        agent.vanish()

    async with ScriptedAgent.connect(server, token) as agent:
        agent.answer_syncs()
        assert not (await reading).snapshot


async def test_the_error_of_the_task_app_reaches_the_caller(server: Server) -> None:
    async with active(server) as agent:

        async def answer(sync: task_agents_pb2.Sync) -> None:
            await agent.sync_failed(sync.id, "HTTP 500: out of tokens")

        agent.answer_syncs(answer)
        refusal = await refused(read(server))

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == "TASK_APP_ERROR"
    assert "HTTP 500: out of tokens" in refusal.message
    assert refusal.metadata["reason"] == "HTTP 500: out of tokens"


async def test_a_long_reason_in_any_script_still_arrives(server: Server) -> None:
    async with active(server) as agent:

        async def answer(sync: task_agents_pb2.Sync) -> None:
            await agent.sync_failed(sync.id, "\U0001f4a5" * 100_000)

        agent.answer_syncs(answer)
        refusal = await refused(read(server))

    assert refusal.reason == "TASK_APP_ERROR"
    assert "\U0001f4a5" in refusal.message


async def test_a_task_app_that_does_not_answer_within_sync_timeout_is_an_error(
    make_server: MakeServer,
) -> None:
    async with make_server(sync_timeout=timedelta(seconds=0.3)) as server, active(server):
        refusal = await refused(read(server))

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == "TASK_APP_ERROR"
    assert "0.3 s" in refusal.message


async def test_a_task_app_that_does_not_answer_in_the_callers_time_is_an_error(
    server: Server,
) -> None:
    async with active(server):
        refusal = await refused(read(server, timeout=0.5))

    assert refusal.reason == "TASK_APP_ERROR"


async def test_a_late_answer_to_a_sync_that_timed_out_is_ignored(
    make_server: MakeServer,
) -> None:
    async with make_server(sync_timeout=timedelta(seconds=0.3)) as server, active(server) as agent:
        await refused(read(server))
        await agent.sync_done(agent.syncs[0].id)
        await agent.sync_done(4711)
        agent.answer_syncs()

        assert not (await read(server)).snapshot


async def test_a_task_that_hangs_slows_no_read_of_another(make_server: MakeServer) -> None:
    longer = 2 * DEADLINE_SECONDS  # than this test waits for the other reads
    async with (
        make_server(sync_timeout=timedelta(seconds=longer)) as server,
        active(server) as hanging,
        active(server, "other") as agent,
    ):
        agent.answer_syncs()
        stuck = [asyncio.create_task(read(server, timeout=longer)) for _ in range(50)]
        await hanging.heard(lambda: bool(hanging.syncs))

        async with asyncio.timeout(DEADLINE_SECONDS):
            for _ in range(20):
                assert not (await read(server, task="local/other")).snapshot

        assert not any(one.done() for one in stuck)
        for one in stuck:
            one.cancel()


async def test_callers_that_cancel_leave_nothing_behind(server: Server) -> None:
    async with active(server) as agent:
        reading = asyncio.create_task(read(server))
        await agent.heard(lambda: bool(agent.syncs))
        reading.cancel()
        next_reading = asyncio.create_task(read(server))
        agent.answer_syncs()
        await agent.sync_done(agent.syncs[0].id)

        assert not (await next_reading).snapshot


async def test_a_sync_no_older_than_max_staleness_is_enough(server: Server) -> None:
    async with active(server) as agent:
        agent.answer_syncs()
        first = await read(server)

        again = await read(server, max_staleness=Duration(seconds=600))
        assert len(agent.syncs) == 1
        assert not again.snapshot
        assert again.snapshot_at == first.snapshot_at

        anew = await read(server, max_staleness=Duration())
        assert len(agent.syncs) == 2
        assert anew.snapshot_at.ToNanoseconds() > first.snapshot_at.ToNanoseconds()


async def test_a_huge_max_staleness_is_accepted(server: Server) -> None:
    async with active(server) as agent:
        agent.answer_syncs()

        for seconds in (0, 315_576_000_000, 2**62):
            assert not (await read(server, max_staleness=Duration(seconds=seconds))).snapshot


async def test_a_task_that_is_deleted_during_a_read_is_not_found_or_unreachable(
    server: Server,
) -> None:
    async with active(server) as agent:
        reading = asyncio.create_task(refused(read(server, timeout=10)))
        await agent.heard(lambda: bool(agent.syncs))
        await server.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task=TASK))

        refusal = await reading

    assert refusal.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)


async def test_a_task_that_is_paused_while_a_read_waits_for_its_agent_is_read_as_paused(
    make_server: MakeServer,
) -> None:
    async with make_server(agent_wait=timedelta(seconds=1)) as server:
        await server.create_task()
        await make_active(server)
        waiting = asyncio.create_task(read(server))
        await report_build(server, 2, STOP)
        answer = await waiting
        assert answer.snapshot
        assert answer.status == types_pb2.TASK_STATUS_PAUSED


async def test_a_task_that_is_deleted_while_a_read_waits_for_its_agent_is_not_found(
    make_server: MakeServer,
) -> None:
    async with make_server(agent_wait=timedelta(seconds=1)) as server:
        await server.create_task()
        await make_active(server)
        waiting = asyncio.create_task(refused(read(server)))
        await server.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task=TASK))
        assert (await waiting).code is grpc.StatusCode.NOT_FOUND


async def test_a_read_with_a_deadline_below_100_ms_is_answered_if_its_task_app_is_fast(
    server: Server,
) -> None:
    """A busy machine may be too slow for some of these reads, but not for all of them."""
    async with active(server) as agent:
        agent.answer_syncs()
        answered = False
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not answered:
                with suppress(grpc.aio.AioRpcError):
                    answered = not (await read(server, timeout=0.09)).snapshot
        assert not agent.has_ended


async def test_hurried_reads_do_not_end_the_stream_of_a_slow_task_app(server: Server) -> None:
    async with active(server) as agent:
        for timeout in (0.001, 0.01, 0.05, 0.1, 0.2):
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError):
                    await read(server, timeout=timeout)
        await agent.heard(lambda: bool(agent.syncs))
        agent.answer_syncs()
        for sync in agent.syncs:
            await agent.sync_done(sync.id)
        assert not (await read(server)).snapshot
        assert not agent.has_ended
