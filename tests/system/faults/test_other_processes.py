"""Any process answers for any task: the agent is at one server, the callers are at another.

No feed polls and no audit runs by itself: what another process did is known by its notes alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tasklogs.v1 import task_agents_pb2 as agent_pb
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2, types_pb2
from tasklogs_server.bus.notes import HeardNote, SyncAsked
from tasklogs_server.bus.outbox import Outbox
from tasklogs_server.bus.payloads import Control
from tasklogs_server.ingest import session_audit
from tasklogs_server.ingest.session_waiters import Arrival, SessionWaiters
from tasklogs_server.reads import feed
from tasklogs_server.store.sessions import SessionStore
from tasklogs_server.store.task_states import AskedState, Found, TaskStates
from tests.support.fixtures.agent_stream import Ended, ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.nats_cluster import nats_cluster
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import STOP, TASK, make_active, report_agent, report_build
from tests.support.fixtures.server import MakeServer, Server

NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")


@pytest.fixture(autouse=True)
def notes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_audit, "AUDIT_SECONDS", 3600)
    monkeypatch.setattr(feed, "_POLL_SECONDS", 3600)


@pytest.fixture(params=["postgres", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    if request.param == "postgres":
        yield "postgres"
    else:
        async with nats_cluster() as cluster:
            yield ",".join(cluster.urls)


@pytest.fixture
async def here(make_server: MakeServer, bus: str) -> AsyncIterator[Server]:
    async with make_server(bus=bus, agent_wait="60") as running:
        yield running


@pytest.fixture
async def there(make_server: MakeServer, here: Server, bus: str) -> AsyncIterator[Server]:
    del here  # it is there first
    async with make_server(bus=bus, agent_wait="60") as running:
        yield running


@pytest.fixture
async def token(here: Server) -> str:
    made = await here.create_task()
    await make_active(here)
    return made.agent_token


async def read_until(
    follow: AsyncIterable[pb.FollowTaskLogsResponse], content: str
) -> pb.FollowTaskLogsResponse:
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for message in follow:
            if any(one.content == content for one in message.entries.logs):
                return message
    raise AssertionError("the follow ended")


async def test_a_follow_gets_what_an_agent_sends_to_another_process(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "first")])
        await agent.acked()
        follow = here.logs.FollowTaskLogs(pb.FollowTaskLogsRequest(task=TASK))
        try:
            await read_until(follow, "first")
            for number in range(1, 20):
                await agent.append(entries=[log_entry(number, f"entry {number}")])
                await read_until(follow, f"entry {number}")
        finally:
            follow.cancel()


async def test_a_follow_is_caught_up_through_an_agent_at_another_process(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:

        async def show_more(sync: agent_pb.Sync) -> None:
            await agent.append(open_epoch=True, entries=[log_entry(0, "shown")])
            await agent.sync_done(sync.id)

        agent.answer_syncs(show_more)
        follow = here.logs.FollowTaskLogs(pb.FollowTaskLogsRequest(task=TASK))
        try:
            contents: list[str] = []
            async with asyncio.timeout(DEADLINE_SECONDS):
                async for message in follow:
                    contents += [one.content for one in message.entries.logs]
                    if message.HasField("caught_up"):
                        break
            assert contents == ["shown"]
        finally:
            follow.cancel()


async def test_a_live_read_has_what_an_agent_at_another_process_shows(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        shown = 0

        async def show_more(sync: agent_pb.Sync) -> None:
            nonlocal shown
            await agent.append(open_epoch=not shown, entries=[log_entry(shown, f"entry {shown}")])
            shown += 1
            await agent.sync_done(sync.id)

        agent.answer_syncs(show_more)
        for reads in range(1, 10):
            answer = await read_live(here)
            assert [one.content for one in answer.logs] == [f"entry {n}" for n in range(reads)]
            assert not answer.snapshot
            assert answer.HasField("snapshot_at")


async def test_a_live_read_waits_for_an_agent_that_connects_to_another_process(
    here: Server, there: Server, token: str
) -> None:
    reading = asyncio.create_task(read_live(here))
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        agent.answer_syncs()
        assert not (await reading).snapshot


async def test_a_live_read_goes_on_when_the_process_of_the_agent_ends(
    make_server: MakeServer, here: Server, bus: str, token: str
) -> None:
    async with make_server(bus=bus) as there:
        agent = ScriptedAgent.connect(there, token, build_number=1)
        first = await agent.__aenter__()
        reading = asyncio.create_task(read_live(here))
        await first.heard(lambda: bool(first.syncs))  # it gets no answer
    await agent.__aexit__(None, None, None)
    async with ScriptedAgent.connect(here, token, build_number=1) as second:
        second.answer_syncs()
        assert not (await reading).snapshot


async def test_a_read_that_lost_its_note_asks_again(
    here: Server, there: Server, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next beat tells the other process of the loss. It tells this one."""
    add, lost = Outbox.add, 0

    def lose_the_first(self: Outbox, note: HeardNote | Control, to: UUID | None = None) -> None:
        nonlocal lost
        if isinstance(note, SyncAsked) and not lost:
            lost += 1
            self._queue(to).number += 1
        else:
            add(self, note, to)

    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        agent.answer_syncs()
        monkeypatch.setattr(Outbox, "add", lose_the_first)
        assert not (await read_live(here)).snapshot
        assert lost


async def test_what_the_task_app_says_at_another_process_is_told(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        agent.answer_syncs(lambda sync: agent.sync_failed(sync.id, "out of \u00fcrgs"))
        refusal = await refused(read_live(here))
        assert refusal.reason == "TASK_APP_ERROR"
        assert "out of \u00fcrgs" in refusal.message


async def test_a_live_read_does_not_rest_on_a_session_elsewhere_that_the_store_does_not_name(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        agent.answer_syncs()
        assert not (await read_live(here)).snapshot
        connection = await asyncpg.connect(here.dsn)
        try:
            await connection.execute("UPDATE log_heads SET fence = fence + 1")
        finally:
            await connection.close()
        reading = asyncio.create_task(read_live(here))
        assert how(await agent.ended()) == (grpc.StatusCode.ABORTED, "SESSION_LOST")
        async with ScriptedAgent.connect(there, token, build_number=1) as again:

            async def show(sync: agent_pb.Sync) -> None:
                await again.append(open_epoch=True, entries=[log_entry(0, "shown")])
                await again.sync_done(sync.id)

            again.answer_syncs(show)
            assert [one.content for one in (await reading).logs] == ["shown"]


async def test_a_live_read_does_not_rest_on_what_a_process_has_lost(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        agent.answer_syncs()
        await agent.append(open_epoch=True, entries=[log_entry(0, "shown")])
        await agent.acked()
        assert [one.content for one in (await read_live(here)).logs] == ["shown"]
        connection = await asyncpg.connect(here.dsn)
        try:  # what a failover to an asynchronous standby does
            await connection.execute("UPDATE log_heads SET revision = 1, entries = 0, bytes = 0")
            await connection.execute("UPDATE log_heads SET tail_id = NULL, total_rows = 0")
            await connection.execute("DELETE FROM log_entries")
        finally:
            await connection.close()
        reading = asyncio.create_task(read_live(here))
        assert how(await agent.ended()) == (grpc.StatusCode.ABORTED, "SESSION_LOST")
        reading.cancel()
        await asyncio.wait([reading])


async def test_an_agent_leaves_when_its_task_is_deleted_at_another_process(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        follow = there.logs.FollowTaskLogs(pb.FollowTaskLogsRequest(task=TASK))
        await next_status(follow)
        await here.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task=TASK))
        assert how(await agent.ended()) == NOT_FOUND
        assert (await refused(read_until(follow, "nothing"))).code is NOT_FOUND[0]


async def test_a_token_that_is_rotated_at_another_process_opens_nothing_any_more(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        await here.tasks.RotateAgentToken(tasks_pb2.RotateAgentTokenRequest(task=TASK))
        assert how(await agent.ended()) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_a_second_agent_at_another_process_supersedes_the_first(
    here: Server, there: Server, token: str
) -> None:
    async with (
        ScriptedAgent.connect(there, token, build_number=1) as first,
        ScriptedAgent.connect(here, token, build_number=1) as second,
    ):
        assert how(await first.ended()) == (grpc.StatusCode.ABORTED, "SESSION_SUPERSEDED")

        async def show(sync: agent_pb.Sync) -> None:
            await second.append(open_epoch=True, entries=[log_entry(0, "by the second")])
            await second.sync_done(sync.id)

        second.answer_syncs(show)
        assert [one.content for one in (await read_live(there)).logs] == ["by the second"]


async def test_a_newer_build_that_is_reported_at_another_process_ends_the_older_agent(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        await report_build(here, 2)
        assert how(await agent.ended()) == (grpc.StatusCode.FAILED_PRECONDITION, "STALE_REPORT")


async def test_an_agent_is_asked_for_its_state_after_a_report_at_another_process(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token) as agent:
        await report_build(here, 2)
        await agent.heard(lambda: agent.report_states == 1)
        assert not agent.has_ended


async def test_a_follow_gets_a_status_that_is_reported_at_another_process(
    here: Server, there: Server, token: str
) -> None:
    assert token
    follow = here.logs.FollowTaskLogs(
        pb.FollowTaskLogsRequest(task=TASK, source=pb.LOG_SOURCE_SNAPSHOT)
    )
    try:
        for health, status in (
            (types_pb2.APP_HEALTH_UNHEALTHY, types_pb2.TASK_STATUS_ERROR),
            (types_pb2.APP_HEALTH_HEALTHY, types_pb2.TASK_STATUS_ACTIVE),
        ) * 3:
            await report_agent(there, app_health=health)
            async with asyncio.timeout(DEADLINE_SECONDS):
                while (await next_status(follow)) != status:
                    pass
    finally:
        follow.cancel()


async def test_a_follow_gets_what_is_uploaded_at_another_process(
    here: Server, there: Server, token: str
) -> None:
    follow = here.logs.FollowTaskLogs(
        pb.FollowTaskLogsRequest(task=TASK, source=pb.LOG_SOURCE_SNAPSHOT)
    )
    try:
        await next_status(follow)
        message: dict[str, str | int] = {
            "id": 0,
            "role": "agent",
            "content": "up",
            "time": "2026-01-01T00:00:00Z",
        }
        request = agent_pb.UploadLogSnapshotRequest(format=agent_pb.SNAPSHOT_FORMAT_AGENTAPI)
        request.data.get_or_create_list("messages").add_struct().update(message)
        await there.agents.UploadLogSnapshot(
            request, metadata=(("authorization", f"Bearer {token}"),)
        )
        await read_until(follow, "up")
    finally:
        follow.cancel()


async def test_readers_that_wait_for_an_agent_look_for_it_together(
    make_server: MakeServer, here: Server, bus: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers, waits, statements = 40, 0, 0
    wait_for, ask = SessionWaiters.wait_for, TaskStates.read

    async def waiting(self: SessionWaiters, task_id: UUID, timeout: timedelta) -> Arrival:
        nonlocal waits
        waits += 1
        return await wait_for(self, task_id, timeout)

    async def asking(self: TaskStates, take: Callable[[], Sequence[AskedState]]) -> Sequence[Found]:
        nonlocal statements
        statements += 1
        return await ask(self, take)

    async def alone(_: SessionStore, task_id: UUID) -> None:
        raise AssertionError(f"a statement for one reader of {task_id}")

    monkeypatch.setattr(SessionWaiters, "wait_for", waiting)
    monkeypatch.setattr(SessionStore, "process_of", alone)
    readings = [asyncio.create_task(read_live(here)) for _ in range(readers)]
    await until(lambda: waits == readers)
    monkeypatch.setattr(TaskStates, "read", asking)
    async with make_server(bus=bus) as there:
        await until(lambda: waits == 2 * readers)  # they have looked, and wait again
        assert 1 <= statements < readers / 4
        async with ScriptedAgent.connect(there, token, build_number=1) as agent:
            agent.answer_syncs()
            await asyncio.gather(*readings)


async def test_a_recent_sync_of_another_process_is_enough(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        agent.answer_syncs()
        first = await read_live(here)
        again = await read_live(here, max_staleness=Duration(seconds=600))
        assert again.snapshot_at == first.snapshot_at
        assert len(agent.syncs) == 1
        assert (await read_live(here)).snapshot_at.ToNanoseconds() > (
            first.snapshot_at.ToNanoseconds()
        )


async def next_status(
    follow: AsyncIterable[pb.FollowTaskLogsResponse],
) -> types_pb2.TaskStatus.ValueType:
    async for message in follow:
        if message.HasField("status"):
            return message.status.status
    raise AssertionError("the follow ended")


def how(ended: Ended) -> tuple[grpc.StatusCode, str | None]:
    return ended.code, ended.reason


async def read_live(
    server: Server, max_staleness: Duration | None = None
) -> pb.GetTaskLogsResponse:
    request = pb.GetTaskLogsRequest(
        task=TASK, source=pb.LOG_SOURCE_LIVE, max_staleness=max_staleness
    )
    return await server.logs.GetTaskLogs(request, timeout=DEADLINE_SECONDS)


async def test_a_sync_at_another_process_begins_while_the_store_is_asked(
    here: Server, there: Server, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_ask = asyncio.Event()
    ask = TaskStates.read

    async def ask_later(
        self: TaskStates, take: Callable[[], Sequence[AskedState]]
    ) -> Sequence[Found]:
        await may_ask.wait()
        return await ask(self, take)

    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        agent.answer_syncs()
        await read_live(here)  # the page in memory tells where the session is
        synced = len(agent.syncs)
        monkeypatch.setattr(TaskStates, "read", ask_later)
        reading = asyncio.create_task(read_live(here))
        await agent.heard(lambda: len(agent.syncs) > synced)
        assert not reading.done()
        may_ask.set()
        assert not (await reading).snapshot
        assert len(agent.syncs) == synced + 1


async def test_a_task_that_is_active_no_longer_is_refused_whatever_its_agent_says(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        agent.answer_syncs()
        await read_live(here)
        await report_build(here, 2, STOP)
        refusal = await refused(read_live(here))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "TASK_STATE_CONFLICT",
        )


def showing(agent: ScriptedAgent, content: str) -> None:
    """Let the agent answer its next sync, and only that, with an entry that is new."""

    async def show(sync: agent_pb.Sync) -> None:
        await agent.append(open_epoch=True, entries=[log_entry(0, content)])
        await agent.sync_done(sync.id)

    agent.answer_syncs(show)


async def test_a_task_that_was_pending_is_read_live_when_it_is_active_at_another_process(
    here: Server, there: Server
) -> None:
    either = pb.GetTaskLogsRequest(task=TASK)
    token = (await here.create_task()).agent_token
    for _ in range(2):  # the page in memory says that it is pending
        assert (await here.logs.GetTaskLogs(either)).snapshot
    await make_active(there)
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        showing(agent, "shown")
        answer = await here.logs.GetTaskLogs(either, timeout=DEADLINE_SECONDS)
        assert not answer.snapshot
        assert [one.content for one in answer.logs] == ["shown"]
        assert len(agent.syncs) == 1


async def test_a_read_has_what_the_later_agent_shows_whatever_it_asked_the_earlier_one(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        agent.answer_syncs()
        await read_live(here)  # the page in memory tells where the session is
        async with ScriptedAgent.connect(here, token, build_number=1) as later:
            showing(later, "shown")
            answer = await read_live(here)
            assert [one.content for one in answer.logs] == ["shown"]
