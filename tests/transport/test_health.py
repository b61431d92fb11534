"""grpc.health.v1.Health, and how calls end while the store is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tasklogs_server.transport.health import Health
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import TASK, get_task, make_active
from tests.support.fixtures.server import MakeServer, Server

SERVICES = ("", "tasklogs.v1.TaskLogs", "tasklogs.v1.Tasks", "tasklogs.v1.TaskAgents")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def durable(
    make_server: MakeServer, postgres_server: PostgresServer
) -> AsyncIterator[Server]:
    """A server on a Postgres that the test may stop; a call that waits for it waits too long."""
    longer = timedelta(seconds=2 * DEADLINE_SECONDS)
    async with make_server(postgres_server.dsn(), store_wait=longer) as running:
        yield running


def health(server: Server) -> Any:
    return health_pb2_grpc.HealthStub(server.channel)


async def check(server: Server, service: str = "") -> int:
    answer = await health(server).Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def test_every_service_and_the_whole_server_are_serving(server: Server) -> None:
    for service in SERVICES:
        assert await check(server, service) == SERVING


async def test_an_unknown_service_is_not_found(server: Server) -> None:
    refusal = await refused(check(server, "tasklogs.v1.Nothing"))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_all_services_are_listed_with_their_health(server: Server) -> None:
    pb_: Any = health_pb2  # the stubs leave out List
    listed = await health(server).List(pb_.HealthListRequest())

    assert {name: one.status for name, one in listed.statuses.items()} == dict.fromkeys(
        (*SERVICES, "liveness"), SERVING
    )


async def test_a_long_service_name_is_refused_and_not_kept(server: Server) -> None:
    name = "x" * 1_000_000
    watch = health(server).Watch(health_pb2.HealthCheckRequest(service=name))

    assert (await refused(watch.read())).code is grpc.StatusCode.INVALID_ARGUMENT


class Watcher:
    """The context that Watch gets. With `reads` false its peer reads nothing."""

    def __init__(self, *, reads: bool) -> None:
        self._reads = reads
        self.statuses: list[int] = []

    async def write(self, response: health_pb2.HealthCheckResponse) -> None:
        if not self._reads:
            await asyncio.Event().wait()
        self.statuses.append(response.status)


async def test_a_watcher_that_reads_nothing_delays_no_change_and_no_other_watcher() -> None:
    servicer = Health()
    servicer.set("", serving=True)
    stuck, reader = Watcher(reads=False), Watcher(reads=True)
    request = health_pb2.HealthCheckRequest()
    async with asyncio.TaskGroup() as group:
        watches = [
            group.create_task(servicer.Watch(request, who))  # type: ignore[arg-type]
            for who in (stuck, reader)
        ]
        await until(lambda: reader.statuses == [SERVING])
        servicer.set("", serving=False)
        await until(lambda: reader.statuses == [SERVING, NOT_SERVING])
        servicer.set("", serving=True)
        servicer.leave()
        servicer.set("", serving=True)
        await until(lambda: reader.statuses[-1] == NOT_SERVING)
        for watch in watches:
            watch.cancel()
    assert stuck.statuses == []


async def test_health_follows_the_store(durable: Server, postgres_server: PostgresServer) -> None:
    watch = health(durable).Watch(health_pb2.HealthCheckRequest(service="tasklogs.v1.TaskLogs"))
    assert (await watch.read()).status == SERVING

    postgres_server.stop()
    assert (await watch.read()).status == NOT_SERVING
    for service in SERVICES:
        assert await check(durable, service) == NOT_SERVING

    postgres_server.start()
    assert (await watch.read()).status == SERVING
    watch.cancel()


async def test_calls_are_refused_at_once_while_the_store_is_away_and_answered_after(
    durable: Server, postgres_server: PostgresServer
) -> None:
    token = (await durable.create_task()).agent_token
    async with ScriptedAgent.connect(durable, token) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "kept")])
        await agent.acked()
        await agent.goodbye()

    postgres_server.stop()
    request = logs_pb.GetTaskLogsRequest(task=TASK)
    for call in (
        durable.logs.GetTaskLogs(request, timeout=DEADLINE_SECONDS),
        durable.tasks.ListTasks(pb.ListTasksRequest(), timeout=DEADLINE_SECONDS),
        durable.tasks.CreateTask(pb.CreateTaskRequest(name="other"), timeout=DEADLINE_SECONDS),
        durable.tasks.DeleteTask(pb.DeleteTaskRequest(task=TASK), timeout=DEADLINE_SECONDS),
    ):
        refusal = await refused(call)
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert refusal.reason == "STORE_UNAVAILABLE"
        assert refusal.retry_seconds is not None

    postgres_server.start()

    async def answers() -> bool:
        try:
            await get_task(durable)
        except grpc.aio.AioRpcError:
            return False
        return True

    await until(answers)
    read = await durable.logs.GetTaskLogs(request)
    assert [one.content for one in read.logs] == ["kept"]


async def test_a_live_read_is_refused_when_the_store_fails_during_it(
    durable: Server, postgres_server: PostgresServer
) -> None:
    token = (await durable.create_task()).agent_token
    await make_active(durable)
    async with ScriptedAgent.connect(durable, token) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "kept")])
        await agent.acked()
        call = durable.logs.GetTaskLogs(
            logs_pb.GetTaskLogsRequest(task=TASK), timeout=DEADLINE_SECONDS
        )
        await agent.heard(lambda: bool(agent.syncs))
        # It is not in what the read has found before the sync.
        await agent.append(entries=[log_entry(1, "new")])
        await agent.acked()
        postgres_server.stop()
        await agent.sync_done(agent.syncs[0].id)

        refusal = await refused(call)

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == "STORE_UNAVAILABLE"


async def test_an_agent_whose_append_finds_no_store_is_told_to_reconnect(
    durable: Server, postgres_server: PostgresServer
) -> None:
    token = (await durable.create_task()).agent_token
    async with ScriptedAgent.connect(durable, token) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "kept")])
        await agent.acked()
        postgres_server.stop()
        await agent.append(entries=[log_entry(1, "not kept")])
        ended = await agent.ended()

    assert ended.code in (grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE)
    assert agent.acks == [1]
