"""What the server holds of calls that have ended, for every RPC: nothing but what was stored."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import grpc.aio
import psutil
import pytest
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tasklogs.log.entry import Entry
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as tasks_pb
from tasklogs_server.ingest.draft import Draft
from tasklogs_server.ingest.session import Session
from tasklogs_server.ingest.upload import PartialUpload
from tasklogs_server.middleware.methods import METHODS
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.authenticated import ADMIN, Guarded, bearing, guarded
from tests.support.fixtures.conditions import until
from tests.support.fixtures.garbage import calls_are_over, garbage_of_calls, without_collector
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import MakeServer, Server
from tests.system.end_to_end.test_follow_restarts import serving
from tests.system.faults.test_bad_rows import refuse

__all__ = ["without_collector"]

CALLS = 2
UPLOAD = "/tasklogs.v1.TaskAgents/UploadLogSnapshot"
# A field that no message has: it makes a request large, and is kept with it.
_UNKNOWN_FIELD = b"\xc2\x3e" + b"\x80\x80\x04" + b"x" * 65536
_NOT_A_MESSAGE = b"\xff" * 65536


@pytest.fixture
async def guard(make_server: MakeServer, tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded(make_server, tmp_path, channelz=True) as guard:
        yield guard


def request_type(path: str) -> type[Message]:
    # The libraries' v1 of reflection has v1alpha's messages.
    _, service, method = path.replace(".reflection.v1.", ".reflection.v1alpha.").split("/")
    return GetMessageClass(Default().FindServiceByName(service).methods_by_name[method].input_type)


def refused_request(path: str) -> bytes:
    """Return a request that the handler refuses, if there is one."""
    request: Any = request_type(path)()
    fields = request.DESCRIPTOR.fields_by_name
    if "task" in fields:
        request.task = "alice/none"
    if "page_token" in fields:
        request.page_token = "nonsense"
    encoded: bytes = request.SerializeToString()
    return encoded + _UNKNOWN_FIELD


async def talk(channel: Any, path: str, request: bytes, metadata: Any) -> None:
    """Call a method of any kind with one request, and read to the end."""
    call = channel.stream_stream(path)(metadata=metadata)
    try:
        await call.write(request)
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            if path.endswith("/Watch"):
                call.cancel()
    except (grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError):
        pass


async def assert_nothing_is_held(server: Server, kinds: Sequence[type]) -> None:
    # gRPC lets go of the last call of a server when the next one comes.
    health: Any = HealthStub(server.channel)
    await health.Check(HealthCheckRequest())
    await calls_are_over()
    # A batch of commits may be under way.
    await until(lambda: not any(type(one) in kinds for one in gc.get_objects()))
    assert garbage_of_calls(*kinds) == {}


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("path", METHODS)
async def test_calls_of_every_method_hold_nothing_when_they_have_ended(
    guard: Guarded, path: str
) -> None:
    token = (await guard.create("alice")).agent_token
    credentials = [(), bearing("nonsense"), guard.as_("alice"), guard.as_("root", scope=ADMIN)]
    for metadata in (*credentials, bearing(token)):
        for request in (refused_request(path), _NOT_A_MESSAGE, _UNKNOWN_FIELD * 64):
            for _ in range(CALLS):
                await talk(guard.server.channel, path, request, metadata)

    await assert_nothing_is_held(guard.server, [request_type(path)])


@pytest.mark.usefixtures("without_collector")
async def test_answered_calls_hold_nothing_when_they_have_ended(server: Server) -> None:
    token = (await server.create_task()).agent_token
    follow = logs_pb.FollowTaskLogsRequest(task="local/demo", source=logs_pb.LOG_SOURCE_SNAPSHOT)
    for number in range(20):
        await server.agents.UploadLogSnapshot(conversation(number), metadata=bearing(token))
        await server.logs.GetTaskLogs(logs_pb.GetTaskLogsRequest(task="local/demo"))
        await server.tasks.ListTasks(tasks_pb.ListTasksRequest())
        await server.tasks.CreateTask(tasks_pb.CreateTaskRequest(name=f"another-{number}"))
        call: Any = server.logs.FollowTaskLogs(follow)
        while not (await call.read()).HasField("caught_up"):
            pass
        call.cancel()

    await assert_nothing_is_held(server, [])


def large_append(**fields: Any) -> pb.AgentMessage:
    """Return an append of 1 MB. The first of a session opens an epoch, and this one does not."""
    return pb.AgentMessage(append=pb.LogAppend(entries=[log_entry(0, "x" * 1_000_000)], **fields))


async def send_hello_again(agent: ScriptedAgent) -> None:
    await agent.append([log_entry(0, "x" * 500_000)], open_epoch=True)
    await agent.acked()
    await agent.send(pb.AgentMessage(hello=pb.Hello()))
    assert (await agent.ended()).reason == "PROTOCOL_VIOLATION"


async def send_a_wrong_sequence(agent: ScriptedAgent) -> None:
    await agent.send(large_append(sequence=7))
    assert (await agent.ended()).reason == "PROTOCOL_VIOLATION"


async def send_what_cannot_be_appended(agent: ScriptedAgent) -> None:
    await agent.send(large_append(sequence=1, open_epoch=True, withdraw_tail=True))
    assert (await agent.ended()).reason is not None


async def send_no_case(agent: ScriptedAgent) -> None:
    await agent.append([log_entry(0, "x" * 500_000)], open_epoch=True)
    await agent.send(pb.AgentMessage())
    assert (await agent.ended()).reason == "UNSUPPORTED"


async def vanish(agent: ScriptedAgent) -> None:
    await agent.append([log_entry(0, "x" * 500_000)], open_epoch=True)
    agent.vanish()
    await agent.ended()


async def say_goodbye(agent: ScriptedAgent) -> None:
    await agent.append([log_entry(0, "x" * 500_000)], open_epoch=True)
    await agent.acked()
    await agent.goodbye()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize(
    "end",
    [
        send_hello_again,
        send_a_wrong_sequence,
        send_what_cannot_be_appended,
        send_no_case,
        vanish,
        say_goodbye,
    ],
    ids=lambda end: end.__name__,
)
async def test_a_session_that_has_ended_holds_nothing(server: Server, end: Any) -> None:
    token = (await server.create_task()).agent_token
    for _ in range(CALLS):
        async with ScriptedAgent.connect(server, token) as agent:
            await end(agent)

    await assert_nothing_is_held(server, [Session, Draft])


def conversation(messages: int) -> pb.UploadLogSnapshotRequest:
    request = pb.UploadLogSnapshotRequest(format=pb.SNAPSHOT_FORMAT_AGENTAPI)
    said = {"role": "user", "content": "x" * 24, "time": "2026-01-02T03:04:05Z"}
    request.data.update({"messages": [{"id": number, **said} for number in range(messages)]})
    return request


@pytest.mark.usefixtures("without_collector")
async def test_an_upload_that_the_store_refuses_is_not_held(server: Server) -> None:
    created = await server.create_task()
    upload = conversation(100).SerializeToString()
    sql = await asyncpg.connect(server.dsn)
    try:
        await refuse(sql, UUID(created.task.id), "23514")
    finally:
        await sql.close()
    for _ in range(CALLS):
        await talk(server.channel, UPLOAD, upload, bearing(created.agent_token))

    await assert_nothing_is_held(server, [pb.UploadLogSnapshotRequest, PartialUpload, Entry])


async def test_a_hundred_refused_uploads_cost_no_memory(postgres_server: PostgresServer) -> None:
    """Each has 2.4 MB on the wire and 12 MB when it is decoded: 1.2 GB if they were held.

    Refusing them makes few objects, so no collection comes to the rescue.
    """
    async with asyncio.timeout(300), serving(postgres_server.dsn()) as (process, server):
        assert process.process is not None
        measured = psutil.Process(process.process.pid)
        metadata = bearing((await server.create_task()).agent_token)
        request = conversation(22_000)
        request.format = pb.SNAPSHOT_FORMAT_UNSPECIFIED
        upload = request.SerializeToString()
        assert len(upload) > 2_300_000
        call: Any = server.channel.unary_unary(UPLOAD)
        for number in range(110):
            if number == 10:
                before = measured.memory_info().rss
            assert (await refused(call(upload, metadata=metadata))).reason == "INVALID_FIELDS"
        grown = measured.memory_info().rss - before
    assert grown < before / 2
