"""Sessions that another server process ended: the process that has the stream finds out.

Two servers use one database, and no notes pass between them. The agent's stream is at `one`. What
ends its session happens at `other`, or in the store itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2, types_pb2
from tasklogs_server.ingest import session_audit
from tests.support.fixtures.agent_stream import Ended, ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import (
    TASK,
    get_task,
    make_active,
    report_agent,
    report_build,
)
from tests.support.fixtures.server import MakeServer, Server

pytestmark = pytest.mark.usefixtures("no_notes")

SUPERSEDED = (grpc.StatusCode.ABORTED, "SESSION_SUPERSEDED")
STALE = (grpc.StatusCode.FAILED_PRECONDITION, "STALE_REPORT")
NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
LOST = (grpc.StatusCode.ABORTED, "SESSION_LOST")
ROTATED = "the agent token was rotated"


@dataclass
class Scene:
    """An ACTIVE task whose agent (of build 1) is connected to `one` and answers syncs."""

    one: Server
    other: Server
    token: str
    agent: ScriptedAgent

    async def rotate(self) -> None:
        await self.other.tasks.RotateAgentToken(tasks_pb2.RotateAgentTokenRequest(task=TASK))

    async def delete(self) -> None:
        await self.other.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task=TASK))

    async def start_a_newer_build(self) -> None:
        await report_build(self.other, 2)
        await report_agent(self.other, number=2)

    async def connect_another_agent(self) -> None:
        async with ScriptedAgent.connect(self.other, self.token, build_number=1):
            pass

    async def lose_the_last_commit(self) -> None:
        """Do to the rows what a failover to an asynchronous standby does."""
        connection = await asyncpg.connect(self.one.dsn)
        try:
            await connection.execute(
                "UPDATE log_heads SET revision = 0, epoch = 0, entries = 0, bytes = 0,"
                " total_rows = 0, tail_id = NULL, snapshot_at = NULL, digest = $1",
                bytes(32),
            )
            await connection.execute("DELETE FROM log_entries")
            await connection.execute("DELETE FROM log_events")
        finally:
            await connection.close()


Act = Callable[[Scene], Awaitable[None]]


@pytest.fixture
def no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reads and reports alone find out."""
    monkeypatch.setattr(session_audit, "AUDIT_SECONDS", 3600)


@pytest.fixture
def frequent_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_audit, "AUDIT_SECONDS", 0.05)


@pytest.fixture
async def scene(make_server: MakeServer) -> AsyncIterator[Scene]:
    async with (
        make_server(agent_wait="0.3") as one,
        make_server() as other,
        connected(one, other) as made,
    ):
        yield made


@asynccontextmanager
async def connected(one: Server, other: Server) -> AsyncIterator[Scene]:
    token = (await one.create_task()).agent_token
    await make_active(one)
    async with ScriptedAgent.connect(one, token, build_number=1) as agent:
        agent.answer_syncs()
        await agent.append(open_epoch=True, entries=[log_entry(0, "shown")])
        await agent.acked()
        yield Scene(one, other, token, agent)


async def read(
    server: Server, max_staleness: Duration | None = None, timeout: float = DEADLINE_SECONDS
) -> pb.GetTaskLogsResponse:
    request = pb.GetTaskLogsRequest(
        task=TASK, source=pb.LOG_SOURCE_LIVE, max_staleness=max_staleness
    )
    return await server.logs.GetTaskLogs(request, timeout=timeout)


def how(ended: Ended) -> tuple[grpc.StatusCode, str | None]:
    return ended.code, ended.reason


ENDS = [
    pytest.param(Scene.start_a_newer_build, STALE, id="newer build"),
    pytest.param(Scene.connect_another_agent, SUPERSEDED, id="second agent"),
    pytest.param(
        Scene.rotate, (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID"), id="rotated token"
    ),
    pytest.param(Scene.lose_the_last_commit, LOST, id="lost commit"),
]


@pytest.mark.usefixtures("no_audit")
@pytest.mark.parametrize(("act", "reason"), ENDS)
@pytest.mark.parametrize("max_staleness", [None, Duration(seconds=600)], ids=["sync", "recent"])
async def test_a_live_read_does_not_rest_on_a_session_that_has_ended_elsewhere(
    scene: Scene, act: Act, reason: tuple[grpc.StatusCode, str], max_staleness: Duration | None
) -> None:
    assert [one.content for one in (await read(scene.one)).logs] == ["shown"]
    await act(scene)
    refusal = await refused(read(scene.one, max_staleness))
    assert refusal.reason == "AGENT_UNREACHABLE"
    assert how(await scene.agent.ended()) == reason


@pytest.mark.usefixtures("no_audit")
async def test_a_live_read_goes_on_with_the_session_that_comes_instead(
    make_server: MakeServer,
) -> None:
    async with (
        make_server(agent_wait="60") as one,
        make_server() as other,
        connected(one, other) as scene,
    ):
        await scene.lose_the_last_commit()
        reading = asyncio.create_task(read(one))
        assert how(await scene.agent.ended()) == LOST
        async with ScriptedAgent.connect(one, scene.token, build_number=1) as again:
            assert again.welcome.revision == 0
            again.answer_syncs()
            await again.append(open_epoch=True, entries=[log_entry(0, "shown")])
            assert [entry.content for entry in (await reading).logs] == ["shown"]


@pytest.mark.usefixtures("no_audit")
async def test_a_follow_is_caught_up_only_with_a_session_that_the_store_names(
    scene: Scene,
) -> None:
    await scene.lose_the_last_commit()
    follow = scene.one.logs.FollowTaskLogs(pb.FollowTaskLogsRequest(task=TASK))
    try:
        assert how(await scene.agent.ended()) == LOST
        async with ScriptedAgent.connect(scene.one, scene.token, build_number=1) as again:
            again.answer_syncs()
            await again.append(open_epoch=True, entries=[log_entry(0, "shown")])
            contents: list[str] = []
            async with asyncio.timeout(DEADLINE_SECONDS):
                async for message in follow:
                    contents += [entry.content for entry in message.entries.logs]
                    if message.HasField("caught_up"):
                        break
            assert contents == ["shown"]
    finally:
        follow.cancel()


@pytest.mark.usefixtures("frequent_audit")
@pytest.mark.parametrize(
    ("act", "reason"), [*ENDS, pytest.param(Scene.delete, NOT_FOUND, id="deleted task")]
)
async def test_without_a_read_the_audit_ends_the_stream(
    scene: Scene, act: Act, reason: tuple[grpc.StatusCode, str]
) -> None:
    await act(scene)
    ended = await scene.agent.ended()
    assert how(ended) == reason
    if reason[0] is grpc.StatusCode.UNAUTHENTICATED:
        assert ROTATED in ended.message


@pytest.mark.usefixtures("no_audit")
@pytest.mark.parametrize(
    ("act", "reason"),
    [one for one in ENDS if one.id in ("second agent", "rotated token")],
)
async def test_a_report_of_a_session_that_has_ended_elsewhere_changes_nothing(
    scene: Scene, act: Act, reason: tuple[grpc.StatusCode, str]
) -> None:
    await act(scene)
    before = (await get_task(scene.other)).status_detail
    await scene.agent.report(health=types_pb2.APP_HEALTH_UNHEALTHY)
    assert how(await scene.agent.ended()) == reason
    assert (await get_task(scene.other)).status_detail == before


@pytest.mark.usefixtures("no_audit")
async def test_a_goodbye_of_a_session_that_has_ended_elsewhere_pauses_nothing(
    make_server: MakeServer,
) -> None:
    async with make_server() as one, make_server() as other:
        token = (await one.create_task(standalone=True)).agent_token
        async with (
            ScriptedAgent.connect(one, token) as first,
            ScriptedAgent.connect(other, token) as second,
        ):
            await second.report()
            await second.append(open_epoch=True, entries=[log_entry(0, "by the second")])
            await second.acked()
            assert how(await first.goodbye()) == SUPERSEDED
            task = await get_task(one)
            assert task.status_detail.build.transition == types_pb2.BUILD_TRANSITION_START
            assert task.agent_connected


@pytest.mark.usefixtures("frequent_audit")
async def test_what_a_lost_commit_confirmed_is_not_said_of_the_store_without_it(
    scene: Scene,
) -> None:
    assert (await read(scene.one)).HasField("snapshot_at")
    await scene.lose_the_last_commit()
    request = pb.GetTaskLogsRequest(task=TASK, source=pb.LOG_SOURCE_SNAPSHOT)
    assert not (await scene.one.logs.GetTaskLogs(request)).HasField("snapshot_at")
    assert how(await scene.agent.ended()) == LOST
    assert not (await scene.one.logs.GetTaskLogs(request)).HasField("snapshot_at")
