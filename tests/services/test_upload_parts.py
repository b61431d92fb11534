"""UploadLogSnapshotInParts: a conversation in several messages is stored as a whole, or not."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from tasklogs.publish.stream_status import StreamStatus
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import task_agents_pb2_grpc, tasks_pb2
from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain import upload_limits
from tasklogs_server.ingest import upload as ingest_upload
from tasklogs_server.limits import upload_places
from tests.services.test_upload_entries import entry
from tests.services.test_uploads import stored
from tests.support.fixtures.agent_stream import ScriptedAgent
from tests.support.fixtures.authenticated import bearing
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import MakeServer, Server
from tests.system.faults.database_network import database_network

CODE = grpc.StatusCode
MIB = 1024 * 1024


def part(*entries: types.TaskLogEntry, last: bool = False) -> pb.UploadLogSnapshotInPartsRequest:
    return pb.UploadLogSnapshotInPartsRequest(entries=entries, last=last)


class Sender:
    """An upload that is under way. Whatever sees its end raises the server's status."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self._status = StreamStatus(call)

    async def send(self, *parts: pb.UploadLogSnapshotInPartsRequest) -> None:
        for one in parts:
            try:
                await self.call.write(one)
            except grpc.aio.AioRpcError as error:
                raise await self._status.of(error) from None
            except asyncio.InvalidStateError:
                raise await self._status.at_the_end() from None

    async def response(self) -> pb.UploadLogSnapshotInPartsResponse:
        """Close the stream and wait for its response."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.call.done_writing()
            return await self.response_before_the_end()

    async def response_before_the_end(self) -> pb.UploadLogSnapshotInPartsResponse:
        """Wait for the response, and leave the stream open."""
        try:
            answer: pb.UploadLogSnapshotInPartsResponse = await self.call
        except grpc.aio.AioRpcError as error:
            raise await self._status.of(error) from None
        return answer


def begin(server: Server, token: str | None, channel: grpc.aio.Channel | None = None) -> Sender:
    stub = task_agents_pb2_grpc.TaskAgentsStub(channel or server.channel)
    untyped: Any = stub.UploadLogSnapshotInParts
    return Sender(untyped(metadata=() if token is None else bearing(token)))


async def upload(
    server: Server, token: str, *parts: pb.UploadLogSnapshotInPartsRequest
) -> pb.UploadLogSnapshotInPartsResponse:
    sender = begin(server, token)
    await sender.send(*parts)
    return await sender.response()


def of_mib(first_id: int, count: int) -> pb.UploadLogSnapshotInPartsRequest:
    return part(*(entry(first_id + index, chr(97 + index) * MIB) for index in range(count)))


async def number_stored(server: Server) -> tuple[int, int, int]:
    """Return entries, bytes and epoch of the log."""
    log = (await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task="local/demo"))).log
    return log.entries, log.bytes, log.epoch


async def test_all_messages_are_stored_as_one_conversation(server: Server) -> None:
    token = (await server.create_task()).agent_token

    uploaded = await upload(
        server, token, part(entry(0), entry(1)), part(entry(7)), part(entry(8)), part(last=True)
    )

    entries, epoch = await stored(server)
    assert ([one.id for one in entries], epoch) == ([0, 1, 7, 8], 1)
    assert uploaded.revision == entries[-1].revision
    assert uploaded.HasField("snapshot_at")


async def test_20_mib_are_stored_and_read_back_and_a_repeat_changes_nothing(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    parts = [of_mib(2 * index, 2) for index in range(10)]
    parts[-1].last = True

    uploaded = await upload(server, token, *parts)

    assert await number_stored(server) == (20, 20 * MIB, 1)
    assert (await upload(server, token, *parts)).revision == uploaded.revision
    page = await server.logs.GetTaskLogs(
        logs_pb.GetTaskLogsRequest(task="local/demo", source=logs_pb.LOG_SOURCE_SNAPSHOT, tail=1)
    )
    [last] = page.logs
    assert (last.id, last.content, last.revision) == (19, "b" * MIB, uploaded.revision)


async def test_a_conversation_goes_on_after_its_stored_part(server: Server) -> None:
    token = (await server.create_task()).agent_token
    first = await upload(server, token, of_mib(0, 3), part(entry(3, "c"), last=True))

    grown = part(entry(3, "cd"), entry(4), last=True)
    second = await upload(server, token, of_mib(0, 3), grown)
    await upload(server, token, of_mib(0, 3), part(last=True))  # a prefix

    assert second.revision == first.revision + 2
    assert await number_stored(server) == (5, 3 * MIB + 7, 1)


async def test_followers_get_a_large_upload(server: Server) -> None:
    token = (await server.create_task()).agent_token
    follow = server.logs.FollowTaskLogs(
        logs_pb.FollowTaskLogsRequest(task="local/demo", source=logs_pb.LOG_SOURCE_SNAPSHOT)
    )
    seen: list[int] = []

    async def read() -> None:
        async for message in follow:
            seen.extend(one.id for one in message.entries.logs)
            if len(seen) == 9:
                return

    reading = asyncio.create_task(read())
    parts = [of_mib(0, 3), of_mib(3, 3), of_mib(6, 3), part(last=True)]
    await upload(server, token, *parts)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await reading
    follow.cancel()

    assert seen == list(range(9))


async def test_an_empty_conversation_changes_nothing_as_in_one_message(server: Server) -> None:
    token = (await server.create_task()).agent_token
    first = await upload(server, token, part(entry(0), last=True))

    assert (await upload(server, token, part(last=True))).revision == first.revision
    assert await number_stored(server) == (1, 5, 1)


@pytest.mark.parametrize("parts", [[], [part(entry(0))]], ids=["none", "one"])
async def test_a_stream_that_ends_without_its_last_message_stores_nothing(
    server: Server, parts: list[pb.UploadLogSnapshotInPartsRequest]
) -> None:
    token = (await server.create_task()).agent_token

    refusal = await refused(upload(server, token, *parts))

    assert (refusal.code, refusal.fields) == (CODE.INVALID_ARGUMENT, ["last"])
    assert await stored(server) == ([], 0)


async def test_a_message_after_the_last_one_is_refused(server: Server) -> None:
    token = (await server.create_task()).agent_token

    refusal = await refused(upload(server, token, part(entry(0), last=True), part(entry(1))))

    assert (refusal.code, refusal.fields) == (CODE.INVALID_ARGUMENT, ["last"])
    assert await stored(server) == ([], 0)


async def test_a_bad_entry_is_named_with_its_message_and_nothing_is_stored(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token

    refusal = await refused(
        upload(server, token, part(entry(0), entry(5)), part(entry(6), entry(5), last=True))
    )

    assert (refusal.code, refusal.fields) == (CODE.INVALID_ARGUMENT, ["entries[1].id"])
    assert "message 2" in refusal.message
    first_again = await refused(upload(server, token, part(entry(5)), part(entry(5), last=True)))
    assert first_again.fields == ["entries[0].id"]
    assert await stored(server) == ([], 0)


async def test_the_index_of_a_bad_entry_is_that_in_its_message(server: Server) -> None:
    token = (await server.create_task()).agent_token
    many = [entry(index, "") for index in range(1200)]
    many[1100].ClearField("time")

    refusal = await refused(upload(server, token, part(*many, last=True)))

    assert refusal.fields == ["entries[1100].time"]


async def test_a_conversation_past_the_limits_is_refused_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await server.create_task()).agent_token
    monkeypatch.setattr(ingest_upload, "MAX_UPLOAD_BYTES", 3 * MIB)
    monkeypatch.setattr(ingest_upload, "MAX_UPLOAD_ENTRIES", 4)

    too_long = begin(server, token)
    await too_long.send(of_mib(0, 2), of_mib(2, 2))
    long = await refused(too_long.response_before_the_end())
    too_many = begin(server, token)
    await too_many.send(part(*(entry(index) for index in range(5))))
    many = await refused(too_many.response_before_the_end())

    for refusal in (long, many):
        assert refusal.code is CODE.RESOURCE_EXHAUSTED
        assert refusal.retry_seconds is None
    assert "bytes of content" in long.message
    assert "4 entries" in many.message
    assert await stored(server) == ([], 0)
    exact = await upload(server, token, of_mib(0, 3), part(last=True))
    assert exact.revision == 4


async def test_names_count_for_the_size_of_a_conversation(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await server.create_task()).agent_token
    monkeypatch.setattr(ingest_upload, "MAX_UPLOAD_BYTES", 1000)
    named = [entry(index, "x") for index in range(4)]
    for one in named:
        one.call_id = "c" * 255

    long = await refused(upload(server, token, part(*named, last=True)))

    assert "1000 bytes of content and names" in long.message
    assert (await upload(server, token, part(*named[:3], last=True))).revision == 4


def test_the_limits_are_as_documented() -> None:
    assert (upload_limits.MAX_UPLOAD_BYTES, upload_limits.MAX_UPLOAD_ENTRIES) == (64 * MIB, 100_000)


async def test_a_caller_that_leaves_in_the_middle_stores_nothing_and_frees_its_place(
    make_server: MakeServer,
) -> None:
    async with make_server(uploads=1) as server:
        token = (await server.create_task()).agent_token
        for _ in range(3):
            async with grpc.aio.insecure_channel(
                server.address, [("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                sender = begin(server, token, channel)
                await sender.send(of_mib(0, 2), of_mib(2, 1))
                sender.call.cancel()

            async def is_accepted() -> bool:
                try:
                    await upload(server, token, part(last=True))
                except grpc.aio.AioRpcError as error:
                    assert error.code() is CODE.RESOURCE_EXHAUSTED  # noqa: PT017
                    return False
                return True

            await until(is_accepted)
        assert await stored(server) == ([], 0)


async def test_a_silent_sender_is_given_up(make_server: MakeServer) -> None:
    async with make_server(request_timeout=timedelta(seconds=0.4)) as server:
        token = (await server.create_task()).agent_token
        sender = begin(server, token)
        await sender.send(part(entry(0)))

        async with asyncio.timeout(DEADLINE_SECONDS):
            refusal = await refused(sender.response_before_the_end())

        assert refusal.code is CODE.DEADLINE_EXCEEDED
        assert await stored(server) == ([], 0)
        await upload(server, token, part(entry(0), last=True))


async def test_a_sender_that_never_comes_to_an_end_is_given_up(make_server: MakeServer) -> None:
    async with make_server(upload_timeout=timedelta(seconds=0.5)) as server:
        token = (await server.create_task()).agent_token
        sender = begin(server, token)

        async def trickle() -> None:
            id_ = 0
            while True:
                await sender.send(part(entry(id_)))
                id_ += 1

        async with asyncio.timeout(DEADLINE_SECONDS):
            refusal = await refused(trickle())

        assert refusal.code is CODE.DEADLINE_EXCEEDED
        assert await stored(server) == ([], 0)


async def under_way(server: Server, token: str) -> Sender:
    """Begin an upload with one entry; return when the server has it."""
    sender = begin(server, token)
    await sender.send(part(entry(0)))

    async def is_refused() -> bool:
        nonlocal sender
        if sender.call.done():  # it was refused: this upload reached the server before it
            sender = begin(server, token)
            await sender.send(part(entry(0)))
        try:
            await upload(server, token, part(last=True))
        except grpc.aio.AioRpcError as error:
            assert error.code() is CODE.RESOURCE_EXHAUSTED  # noqa: PT017
            return True
        return False

    await until(is_refused)
    return sender


async def test_a_second_upload_of_the_task_is_refused_while_one_is_under_way(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    other = (await server.create_task("other")).agent_token
    sender = await under_way(server, token)

    refusal = await refused(upload(server, token, part(last=True)))
    assert refusal.retry_seconds is not None
    await upload(server, other, part(entry(0), last=True))
    await sender.send(part(entry(1), last=True))
    await sender.response()
    assert await number_stored(server) == (2, 10, 1)


async def test_more_uploads_than_the_server_takes_are_refused(make_server: MakeServer) -> None:
    async with make_server(uploads=1) as server:
        token = (await server.create_task()).agent_token
        other = (await server.create_task("other")).agent_token
        sender = await under_way(server, token)

        refusal = await refused(upload(server, other, part(last=True)))
        assert "1 uploads at the same time" in refusal.message
        assert refusal.retry_seconds is not None
        await sender.send(part(last=True))
        await sender.response()
        await upload(server, other, part(last=True))


async def test_a_slow_sender_makes_room_for_another_one(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_places, "_GRACE_SECONDS", 0.0)
    async with make_server(uploads=2) as server:
        tokens = [(await server.create_task(name)).agent_token for name in ("demo", "b", "c")]
        slow = [await under_way(server, token) for token in tokens[:2]]

        await upload(server, tokens[2], part(entry(0), last=True))

        ended = await refused(slow[0].response_before_the_end())
        assert (ended.code, ended.reason) == (CODE.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS")
        assert ended.retry_seconds is not None
        assert await stored(server) == ([], 0)
        await slow[1].send(part(last=True))
        await slow[1].response()


async def test_an_open_stream_refuses_an_upload_that_begins_and_one_that_ends(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    sender = await under_way(server, token)

    async with ScriptedAgent.connect(server, token):
        early = await refused(begin(server, token).response_before_the_end())
        await sender.send(part(last=True))
        late = await refused(sender.response())

    for refusal in (early, late):
        assert (refusal.code, refusal.reason) == (CODE.FAILED_PRECONDITION, "SESSION_OPEN")
    assert await stored(server) == ([], 0)


async def test_a_token_that_is_rotated_meanwhile_stores_nothing(server: Server) -> None:
    token = (await server.create_task()).agent_token
    sender = begin(server, token)
    await sender.send(part(entry(0)))
    await server.tasks.RotateAgentToken(tasks_pb2.RotateAgentTokenRequest(task="local/demo"))
    await sender.send(part(last=True))

    refusal = await refused(sender.response())

    assert refusal.code is CODE.UNAUTHENTICATED
    assert await stored(server) == ([], 0)


async def test_credentials_are_checked_before_a_message_arrives(server: Server) -> None:
    created = await server.create_task()
    made_up = created.agent_token[:-1] + ("A" if created.agent_token[-1] != "A" else "B")

    for token in (None, "", "x", made_up):
        refusal = await refused(begin(server, token).response_before_the_end())
        assert refusal.code is CODE.UNAUTHENTICATED


async def test_bytes_that_are_no_message_are_an_invalid_argument(server: Server) -> None:
    token = (await server.create_task()).agent_token
    raw: Any = server.channel
    path = "/tasklogs.v1.TaskAgents/UploadLogSnapshotInParts"
    sender = Sender(raw.stream_unary(path)(metadata=bearing(token)))
    await sender.call.write(b"\xff\xff")

    refusal = await refused(sender.response_before_the_end())

    assert (refusal.code, refusal.fields) == (CODE.INVALID_ARGUMENT, ["request"])


async def test_a_server_that_stops_ends_an_upload(make_server: MakeServer) -> None:
    async with AsyncExitStack() as stopping:
        server = await stopping.enter_async_context(make_server())
        token = (await server.create_task()).agent_token
        async with grpc.aio.insecure_channel(server.address) as channel:
            sender = await under_way(Server(server.address, server.dsn, channel), token)
            await stopping.aclose()
            refusal = await refused(sender.response_before_the_end())

    assert (refusal.code, refusal.reason) == (CODE.UNAVAILABLE, "DRAINING")


async def test_without_its_store_the_server_refuses_the_upload(
    make_server: MakeServer, database: str
) -> None:
    async with database_network(database) as (network, dsn), make_server(dsn) as server:
        token = (await server.create_task()).agent_token
        sender = await under_way(server, token)
        await network.refuse()
        network.cut()

        await sender.send(part(last=True))
        refusal = await refused(sender.response())

        assert (refusal.code, refusal.reason) == (CODE.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert refusal.retry_seconds is not None
