"""Beyond its capacity the server refuses calls early, and says when to retry."""

from __future__ import annotations

import asyncio
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import grpc
import pytest

from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.limits.admission import Admission, Capacity, Kind
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.authenticated import guarded
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import TASK, get_task, make_active
from tests.support.fixtures.server import MakeServer, Server


@asynccontextmanager
async def held_up(server: Server) -> AsyncIterator[None]:
    """Every read of a log waits for as long as the block lasts."""
    connection = await asyncpg.connect(server.dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE log_heads IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def are_held_up(server: Server, count: int, statement: str = "h.tail_part_bytes") -> bool:
    """Whether `count` statements with this text wait. The server sends others by itself.

    Postgres shows the first 1,023 bytes of a statement.
    """
    connection = await asyncpg.connect(server.dsn)
    try:
        waiting = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database() AND position($1 IN query) > 0",
            statement,
        )
        return int(waiting) == count
    finally:
        await connection.close()


def read(server: Server, tail: int) -> asyncio.Task[logs_pb.GetTaskLogsResponse]:
    """Read. Reads of another `tail` are not shared with it."""
    request = logs_pb.GetTaskLogsRequest(task=TASK, tail=tail, source=logs_pb.LOG_SOURCE_SNAPSHOT)

    async def call() -> logs_pb.GetTaskLogsResponse:
        return await server.logs.GetTaskLogs(request, timeout=DEADLINE_SECONDS)

    return asyncio.create_task(call())


async def test_reads_beyond_the_queue_are_refused_at_once_and_those_in_it_are_answered(
    make_server: MakeServer,
) -> None:
    async with make_server(reads=2, queued_reads=3, store_wait=timedelta(seconds=20)) as server:
        await server.create_task()
        async with held_up(server):
            admitted = [read(server, tail) for tail in range(1, 6)]
            await until(lambda: are_held_up(server, 2))
            refusals = await asyncio.gather(*(refused(read(server, 10 + n)) for n in range(20)))
            assert not any(one.done() for one in admitted)
        for one in admitted:
            assert (await one).snapshot

    for refusal in refusals:
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refusal.kinds == ["ErrorInfo", "RetryInfo"]
    # They must not come back at the same time.
    assert len({refusal.retry_seconds for refusal in refusals}) > 10


async def test_a_read_whose_turn_does_not_come_in_time_is_refused(make_server: MakeServer) -> None:
    async with make_server(reads=1, store_wait=timedelta(seconds=0.2)) as server:
        await server.create_task()
        async with held_up(server):
            first = read(server, 1)
            await until(lambda: are_held_up(server, 1))
            refusal = await refused(read(server, 2))
        assert (await first).snapshot

    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.retry_seconds is not None


async def test_writes_have_a_limit_of_their_own(make_server: MakeServer) -> None:
    async with make_server(writes=1) as server:
        await server.create_task()
        async with held_up(server):
            deleting = asyncio.create_task(delete(server))
            await until(lambda: are_held_up(server, 1, "DELETE FROM log_heads"))
            refusal = await refused(server.create_task("other"))
        await deleting
        await server.create_task("other")

    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def delete(server: Server) -> None:
    await server.tasks.DeleteTask(pb.DeleteTaskRequest(task=TASK))


async def test_live_reads_that_wait_for_the_task_app_do_not_count_as_reads(
    make_server: MakeServer,
) -> None:
    async with make_server(reads=2, waiting_reads=10) as server:
        token = (await server.create_task()).agent_token
        await make_active(server)
        async with ScriptedAgent.connect(server, token) as agent:
            await agent.append(open_epoch=True, entries=[log_entry(0, "said")])
            await agent.acked()
            live = {asyncio.create_task(read_live(server)) for _ in range(11)}
            [one_too_many], waiting = await asyncio.wait(live, return_when=FIRST_COMPLETED)
            refusal = await refused(one_too_many)
            await get_task(server)
            agent.answer_syncs()
            await agent.sync_done(agent.syncs[0].id)
            for one in waiting:
                assert [entry.content for entry in (await one).logs] == ["said"]

    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "live reads" in refusal.message


async def read_live(server: Server) -> logs_pb.GetTaskLogsResponse:
    return await server.logs.GetTaskLogs(
        logs_pb.GetTaskLogsRequest(task=TASK), timeout=DEADLINE_SECONDS
    )


async def test_follows_and_agent_streams_are_limited_and_count_until_they_end(
    make_server: MakeServer,
) -> None:
    async with make_server(follows=1, agents=1) as server:
        tokens = [(await server.create_task(name)).agent_token for name in ("a", "b")]
        request = logs_pb.FollowTaskLogsRequest(task="local/a")
        follow = server.logs.FollowTaskLogs(request)
        await follow.read()
        refusal = await refused(anext(aiter(server.logs.FollowTaskLogs(request))))
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        follow.cancel()

        async def may_follow() -> bool:
            try:
                await anext(aiter(server.logs.FollowTaskLogs(request)))
            except grpc.aio.AioRpcError:
                return False
            return True

        await until(may_follow)
        async with ScriptedAgent.connect(server, tokens[0]):
            with pytest.raises(Exception, match="RESOURCE_EXHAUSTED"):
                await ScriptedAgent.connect(server, tokens[1]).__aenter__()


async def test_300_callers_at_once_are_all_answered(server: Server) -> None:
    await server.create_task()

    answers = await asyncio.gather(*(read(server, 30) for _ in range(300)))

    assert all(answer.snapshot for answer in answers)


async def test_a_call_that_leaves_the_queue_gives_its_place_to_the_next() -> None:
    admission = Admission(Capacity(reads=1, queued_reads=2))
    assert admission.enter(Kind.READ) is None
    turns = [asyncio.ensure_future(waited(admission)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceeded):
        await waited(admission)

    turns[0].cancel()
    await asyncio.wait([turns[0]])
    admission.leave(Kind.READ)
    await asyncio.wait_for(turns[1], DEADLINE_SECONDS)
    admission.leave(Kind.READ)
    assert admission.enter(Kind.READ) is None


async def test_callers_of_lists_take_turns_and_leave_reads_alone() -> None:
    admission = Admission(Capacity(lists=1))
    assert admission.enter(Kind.LIST, "a") is None
    order: list[str] = []

    async def list_as(caller: str) -> None:
        await (admission.enter(Kind.LIST, caller) or nothing())
        order.append(caller)

    waiting = [asyncio.ensure_future(list_as(caller)) for caller in "aaab"]
    await all_had_a_turn()
    assert admission.enter(Kind.READ, "a") is None
    assert order == []
    for _ in waiting:
        admission.leave(Kind.LIST)
        await all_had_a_turn()
    assert "".join(order) == "abaa"


async def nothing() -> None:
    pass


async def test_a_caller_that_fills_the_queue_makes_room_for_others() -> None:
    admission = Admission(Capacity(reads=1, queued_reads=2))
    assert admission.enter(Kind.READ, "a") is None
    waiting = [asyncio.ensure_future(admission.enter(Kind.READ, "a") or nothing()) for _ in "12"]
    await all_had_a_turn()
    other = asyncio.ensure_future(admission.enter(Kind.READ, "b") or nothing())
    with pytest.raises(LimitExceeded, match="1 reads at the same time"):
        await waiting[1]
    for one in (waiting[0], other):
        admission.leave(Kind.READ)
        await asyncio.wait_for(one, DEADLINE_SECONDS)


async def test_a_list_whose_turn_does_not_come_in_time_is_refused() -> None:
    capacity = Capacity(lists=1, queue_time=timedelta(seconds=0.05))
    admission = Admission(capacity)
    assert admission.enter(Kind.LIST, "a") is None
    with pytest.raises(LimitExceeded, match="1 lists at the same time"):
        await (admission.enter(Kind.LIST, "b") or nothing())
    admission.leave(Kind.LIST)
    assert admission.enter(Kind.LIST, "b") is None


async def test_queued_reads_take_turns_by_caller() -> None:
    admission = Admission(Capacity(reads=1))
    assert admission.enter(Kind.READ, "a") is None
    order: list[str] = []

    async def wait(caller: str) -> None:
        await (admission.enter(Kind.READ, caller) or nothing())
        order.append(caller)

    waiting = [asyncio.ensure_future(wait(caller)) for caller in "aaaab"]
    await all_had_a_turn()
    for _ in waiting:
        admission.leave(Kind.READ)
        await all_had_a_turn()
    assert "".join(order) == "abaaa"


async def test_the_lists_of_one_user_leave_connections_to_reads(
    make_server: MakeServer, tmp_path: Path
) -> None:
    async with guarded(make_server, tmp_path, read_connections=2) as guard:
        server = guard.server
        for user in ("mallory", "alice"):
            await guard.create(user)

        async def list_as_mallory() -> pb.ListTasksResponse:
            return await server.tasks.ListTasks(
                pb.ListTasksRequest(),
                metadata=guard.as_("mallory"),
                timeout=DEADLINE_SECONDS,
            )

        async def read_as_alice() -> logs_pb.GetTaskLogsResponse:
            return await server.logs.GetTaskLogs(
                logs_pb.GetTaskLogsRequest(task="alice/demo"),
                metadata=guard.as_("alice"),
                timeout=DEADLINE_SECONDS,
            )

        connection = await asyncpg.connect(server.dsn)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
                lists = [asyncio.create_task(list_as_mallory()) for _ in range(5)]
                await until(lambda: are_held_up(server, 1, "AS found"))
                read = asyncio.create_task(read_as_alice())
                await until(lambda: are_held_up(server, 1))
                assert await are_held_up(server, 1, "AS found")
        finally:
            await connection.close()
        await asyncio.gather(read, *lists)


async def test_a_call_whose_time_ends_as_its_turn_comes_is_refused_and_holds_no_place() -> None:
    admission = Admission(Capacity(reads=1, queued_reads=2, queue_time=timedelta(0)))
    assert admission.enter(Kind.READ) is None
    turn = asyncio.ensure_future(waited(admission))
    await asyncio.sleep(0)

    # The call that is handled ends in the same turn of the loop in which the other's time ends.
    asyncio.get_running_loop().call_soon(admission.leave, Kind.READ)

    with pytest.raises(LimitExceeded):
        await turn
    assert admission.enter(Kind.READ) is None


async def waited(admission: Admission) -> None:
    turn = admission.enter(Kind.READ)
    assert turn is not None
    await turn


async def test_a_read_whose_sync_fails_is_counted_correctly_afterwards() -> None:
    admission = Admission(Capacity(reads=1, queued_reads=0, waiting_reads=1))

    async def fail_aside() -> None:
        async with admission.aside():
            assert admission.enter(Kind.READ) is None  # the read that is aside does not count
            admission.leave(Kind.READ)
            raise TimeoutError

    for _ in range(3):
        assert admission.enter(Kind.READ) is None
        with pytest.raises(TimeoutError):
            await fail_aside()
        admission.leave(Kind.READ)


async def test_reads_whose_agents_have_answered_go_before_the_queue_one_by_one() -> None:
    admission = Admission(Capacity(reads=2, queued_reads=1))
    answered = asyncio.Event()
    at_work: list[int] = []

    async def read_live(number: int) -> None:
        assert admission.enter(Kind.READ) is None
        async with admission.aside():
            await answered.wait()
        at_work.append(number)

    live = [asyncio.ensure_future(read_live(number)) for number in range(6)]
    await asyncio.sleep(0)  # all are aside, and none counts
    assert [admission.enter(Kind.READ) for _ in range(2)] == [None, None]
    queued = asyncio.ensure_future(waited(admission))
    await asyncio.sleep(0)

    answered.set()
    await all_had_a_turn()
    assert not at_work
    live[0].cancel()
    await asyncio.wait([live[0]])
    admission.leave(Kind.READ)  # of the one that left
    for expected in ([], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5]):
        assert at_work == expected
        assert not queued.done()
        admission.leave(Kind.READ)
        await all_had_a_turn()
    assert queued.done()
    for _ in range(2):
        admission.leave(Kind.READ)
    assert admission._handled[Kind.READ] == 0


async def all_had_a_turn() -> None:
    """Let the loop run everything that is ready."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_of_too_many_calls_that_wait_to_begin_the_caller_with_the_most_loses_one() -> None:
    admission = Admission(Capacity(begin_per_turn=1, beginning=2))

    async def begin(caller: str) -> str:
        turn = admission.begin(caller)
        if turn is not None:
            await turn
        return caller

    *a_calls, b_call = await asyncio.gather(*map(begin, "aaab"), return_exceptions=True)

    assert b_call == "b"
    assert a_calls[:2] == ["a", "a"]
    assert isinstance(a_calls[2], LimitExceeded)
    assert a_calls[2].limit is Limit.BEGINNING
