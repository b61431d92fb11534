"""Postgres fails over to an asynchronous standby that lacks what was committed last (rule I9).

The address stays: a network in front of the primary leads to the standby afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest

from tasklogs import LogSource, TaskLogsClient
from tasklogs.agent.settings import Settings
from tasklogs.errors import CursorExpired, TaskLogsRpcError
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2
from tasklogs_server.store.records import GENERATION_GAP
from tests.agent.test_with_the_server import agent_of, contents
from tests.reads.follow_reader import reading
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.refusals import refusal_of, refused
from tests.support.fixtures.reports import report_build
from tests.support.fixtures.server import MakeServer, Server
from tests.support.fixtures.standby import Standby
from tests.system.faults.database_network import database_network

TASK = "local/demo"
KEPT, LOST = 11, 5
HEALED_SECONDS = 15.0


@dataclass
class Scene:
    """A server on a primary, with a standby."""

    server: Server
    network: FaultyProxy
    primary: PostgresServer
    standby: Standby

    async def fall_behind(self) -> None:
        await asyncio.to_thread(self.standby.catch_up)
        await asyncio.to_thread(self.standby.fall_behind)

    async def fail_over(self, *, primary_survives: bool = False) -> None:
        """Promote the standby. A primary that survives answers on connections that are open."""
        if not primary_survives:
            await asyncio.to_thread(self.primary.kill)
        await asyncio.to_thread(self.standby.promote)
        self.network.target = self.standby.socket
        if primary_survives:
            # Several calls at once need another connection, which leads to the new primary.
            get = tasks_pb2.GetTaskRequest(task=TASK)
            calls = [self.server.tasks.GetTask(get) for _ in range(8)]
            await asyncio.gather(*calls, return_exceptions=True)
        else:
            self.network.cut()

    async def read(self, **fields: object) -> pb.GetTaskLogsResponse:
        request = pb.GetTaskLogsRequest(task=TASK, **fields)  # type: ignore[arg-type]
        return await self.server.logs.GetTaskLogs(request, timeout=DEADLINE_SECONDS)

    def follow(self, cursor: str = "") -> AsyncIterator[pb.FollowTaskLogsResponse]:
        source = pb.LOG_SOURCE_SNAPSHOT
        request = pb.FollowTaskLogsRequest(task=TASK, source=source, cursor=cursor)
        return aiter(self.server.logs.FollowTaskLogs(request))

    async def reopened(self, token: str) -> bool:
        """Whether an agent can connect. False while the store is away."""
        try:
            async with ScriptedAgent.connect(self.server, token):
                return True
        except TaskLogsRpcError as error:
            if error.code is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


@pytest.fixture
async def scene(
    postgres_server: PostgresServer, standby: Standby, make_server: MakeServer
) -> AsyncIterator[Scene]:
    async with (
        database_network(postgres_server.dsn()) as (network, dsn),
        make_server(dsn) as server,
    ):
        yield Scene(server, network, postgres_server, standby)


@pytest.mark.parametrize("primary_survives", [False, True])
async def test_a_live_read_after_a_failover_holds_all_that_a_quiet_task_app_shows_or_is_refused(
    scene: Scene, primary_survives: bool
) -> None:
    made = await scene.server.create_task("demo", standalone=True)
    async with FakeTaskApp() as app:
        app.messages.clear()
        app.become_ready()
        async with agent_of(made, scene.server.address, app, Settings()):
            for number in range(KEPT):
                app.say("agent", f"message {number}")
            await until(lambda: _is_read(scene, shown_by(app)))
            await scene.fall_behind()
            for number in range(KEPT, KEPT + LOST):
                app.say("agent", f"message {number}")
            shown = shown_by(app)
            assert len(shown) == KEPT + LOST
            assert await _is_read(scene, shown)

            failing_over = asyncio.create_task(scene.fail_over(primary_survives=primary_survives))
            seconds = await _seconds_to_heal(scene, shown, failing_over)
            await failing_over
            assert seconds < HEALED_SECONDS


def shown_by(app: FakeTaskApp) -> list[str]:
    return [message.content for message in app.messages]


async def _is_read(scene: Scene, shown: list[str]) -> bool:
    """Whether a live read has exactly this. False if it is refused."""
    try:
        log = await scene.read()
    except grpc.aio.AioRpcError:
        return False
    return not log.snapshot and contents(log) == shown


async def _seconds_to_heal(
    scene: Scene, shown: list[str], failing_over: asyncio.Task[None]
) -> float:
    """Read until the new primary answers with all that is shown; no answer may lack anything.

    Return how long that took after the failover.
    """
    over_at: float | None = None
    while True:
        if failing_over.done() and over_at is None:
            over_at = time.monotonic()
        is_over = over_at is not None
        try:
            log = await scene.read()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        else:
            assert (contents(log), log.snapshot) == (shown, False)
            if is_over and log.revision > GENERATION_GAP:
                assert over_at is not None
                return time.monotonic() - over_at
        assert over_at is None or time.monotonic() < over_at + DEADLINE_SECONDS


async def test_cursors_and_tokens_of_a_lost_history_are_refused_when_the_log_has_grown_past_them(
    scene: Scene,
) -> None:
    snapshot = {"source": pb.LOG_SOURCE_SNAPSHOT}
    token = (await scene.server.create_task("demo")).agent_token
    await report_build(scene.server)
    async with ScriptedAgent.connect(scene.server, token) as agent:
        await agent.append([log_entry(n, f"kept {n}") for n in range(KEPT)], open_epoch=True)
        await agent.acked()
        kept = await scene.read(**snapshot)
        kept_page = await scene.read(page_size=2, **snapshot)
        await scene.fall_behind()
        async with reading(scene.follow()) as follower:
            for number in range(KEPT, KEPT + LOST):
                await agent.append([log_entry(number, f"lost {number}")])
            await agent.acked()
            lost = await scene.read(**snapshot)
            lost_page = await scene.read(page_size=2, **snapshot)
            assert lost.revision == kept.revision + LOST
            await follower.reached(lost.revision)

            await scene.fail_over()
            error = await follower.end()
        assert isinstance(error, grpc.aio.AioRpcError)
        assert refusal_of(error).reason == "STORE_UNAVAILABLE"
        assert refusal_of(error).retry_seconds
        lost_cursor = follower.messages[-1].cursor
        assert lost_cursor == lost.cursor
        ended = await agent.ended()
        assert ended.reason in ("SESSION_LOST", "STORE_UNAVAILABLE")

    await until(lambda: scene.reopened(token))
    replaced = [f"replaced {number}" for number in range(KEPT, KEPT + 4 * LOST)]
    async with ScriptedAgent.connect(scene.server, token) as agent:
        assert agent.welcome.entries == KEPT
        await agent.append([log_entry(KEPT + n, one) for n, one in enumerate(replaced)])
        await agent.acked()

    for call in (
        anext(scene.follow(lost_cursor)),
        scene.read(page_size=2, page_token=lost_page.next_page_token, **snapshot),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
    async with TaskLogsClient(scene.server.address) as client:
        with pytest.raises(CursorExpired):
            async for _ in client.follow(TASK, source=LogSource.SNAPSHOT, cursor=lost_cursor):
                pass

    # What was read before the store went back stays valid, and leads to what replaced the rest.
    async with reading(scene.follow(kept.cursor)) as resumed:
        await resumed.until(lambda: list(resumed.view.contents().values()) == replaced)
    rest = await scene.read(page_size=2, page_token=kept_page.next_page_token, **snapshot)
    assert contents(rest) == ["kept 2", "kept 3"]
    whole = await scene.read(**snapshot)
    assert contents(whole) == [*(f"kept {number}" for number in range(KEPT)), *replaced]
    revisions = [entry.revision for entry in whole.logs[KEPT:]]
    assert min(revisions) > kept.revision + GENERATION_GAP
