"""Large uploads at the same time: other calls go on, and what is refused may try again."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.struct_pb2 import Struct

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import tasks_pb2
from tasklogs_server.middleware.requests import RequestBodies
from tests.support.fixtures.authenticated import bearing
from tests.support.fixtures.conditions import until
from tests.support.fixtures.refusals import Refusal, refusal_of
from tests.support.fixtures.server import MakeServer, Server

MESSAGES = 30_000
# Decoding one of these uploads in one go takes 130 to 300 ms; the longest piece takes 10 ms.
LONGEST_TURN_SECONDS = 0.05
SMALL = 4


@pytest.fixture
def without_collections() -> Iterator[None]:
    """A garbage collection looks at all that the tests have imported."""
    gc.disable()
    yield
    gc.enable()


@dataclass
class Turns:
    """The longest time without a turn: CPU time of the loop, so that a busy machine counts less."""

    longest_seconds: float = 0.0

    async def watch(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.001)
            self.longest_seconds = max(self.longest_seconds, time.thread_time() - began)


@asynccontextmanager
async def watched_turns() -> AsyncIterator[Turns]:
    turns = Turns()
    watching = asyncio.create_task(turns.watch())
    try:
        yield turns
    finally:
        watching.cancel()
        await asyncio.wait([watching])


def agentapi(count: int, content: str = "message") -> bytes:
    data = Struct()
    data.update(
        {
            "messages": [
                {
                    "id": index,
                    "role": "agent" if index % 2 else "user",
                    "content": f"{content} {index}",
                    "time": f"2026-11-29T10:00:00.{index:06d}Z",
                }
                for index in range(count)
            ]
        }
    )
    request = pb.UploadLogSnapshotRequest(format=pb.SNAPSHOT_FORMAT_AGENTAPI, data=data)
    return request.SerializeToString()


def entries(count: int) -> bytes:
    request = pb.UploadLogSnapshotRequest(format=pb.SNAPSHOT_FORMAT_ENTRIES)
    for index in range(count):
        one = request.entries.add(id=index, type=1 + index % 2, content=f"message {index:060d}")
        one.time.seconds = 1_700_000_000 + index
    return request.SerializeToString()


async def upload(server: Server, token: str, encoded: bytes) -> Refusal | None:
    """Return how the upload was refused; None: it is stored."""
    raw: Any = server.channel
    call = raw.unary_unary("/tasklogs.v1.TaskAgents/UploadLogSnapshot")
    try:
        await call(encoded, metadata=bearing(token))
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return None


async def tokens_of(server: Server, count: int) -> list[str]:
    return [(await server.create_task(f"t{index}")).agent_token for index in range(count)]


async def entries_of(server: Server, count: int) -> list[int]:
    return [
        (await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task=f"local/t{index}"))).log.entries
        for index in range(count)
    ]


@pytest.mark.parametrize("make", [agentapi, entries], ids=["agentapi", "entries"])
async def test_large_uploads_hold_up_no_other_call(
    server: Server, make: Any, without_collections: None
) -> None:
    tokens, encoded, longer = await tokens_of(server, 2), make(MESSAGES), make(MESSAGES + 1000)

    async with watched_turns() as turns:
        refusals = await asyncio.gather(*(upload(server, token, encoded) for token in tokens))

    assert refusals == [None] * 2
    assert await entries_of(server, 2) == [MESSAGES] * 2
    assert turns.longest_seconds < LONGEST_TURN_SECONDS

    # The same again, which is compared with what is stored, and its continuation.
    async with watched_turns() as turns:
        assert await upload(server, tokens[0], encoded) is None
        assert await upload(server, tokens[0], longer) is None
    assert await entries_of(server, 1) == [MESSAGES + 1000]
    assert turns.longest_seconds < LONGEST_TURN_SECONDS


async def test_a_body_with_many_keys_holds_up_no_other_call(
    server: Server, without_collections: None
) -> None:
    """To decode it took 1 to 2 s, in which nothing else happened."""
    [token] = await tokens_of(server, 1)
    request = pb.UploadLogSnapshotRequest(format=pb.SNAPSHOT_FORMAT_AGENTAPI)
    for index in range(300_000):
        request.data.fields[f"{index:x}"].bool_value = True
    encoded = request.SerializeToString()

    async with watched_turns() as turns:
        refusal = await upload(server, token, encoded)

    assert refusal is not None
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["data"])
    assert turns.longest_seconds < LONGEST_TURN_SECONDS


async def test_a_second_upload_of_the_task_is_refused_while_one_is_under_way(
    server: Server,
) -> None:
    [token] = await tokens_of(server, 1)
    encoded = entries(MESSAGES)

    refusals = await asyncio.gather(*(upload(server, token, encoded) for _ in range(4)))

    told = [one for one in refusals if one is not None]
    assert len(told) == 3
    for refusal in told:
        assert refusal.reason == "TOO_MANY_REQUESTS"
        assert "another upload is under way" in refusal.message
        assert refusal.retry_seconds is not None
    assert await upload(server, token, encoded) is None


async def test_more_bytes_than_may_wait_are_refused_and_stored_later(
    make_server: MakeServer,
) -> None:
    async with make_server(uploads_at_work=1, queued_upload_bytes=4 * 1024 * 1024) as server:
        tokens, encoded = await tokens_of(server, SMALL), agentapi(5000, "x" * 300)
        left = dict.fromkeys(tokens)
        refusals: list[Refusal] = []

        async def all_are_stored() -> bool:
            for token, refusal in zip(
                list(left),
                await asyncio.gather(*(upload(server, token, encoded) for token in left)),
                strict=True,
            ):
                if refusal is None:
                    del left[token]
                else:
                    refusals.append(refusal)
            return not left

        await until(all_are_stored)

        assert refusals
        for refusal in refusals:
            assert (refusal.code, refusal.reason) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "TOO_MANY_REQUESTS",
            )
            assert "bytes of uploads wait" in refusal.message
            assert refusal.retry_seconds is not None
        assert await entries_of(server, SMALL) == [5000] * SMALL


async def test_the_request_of_an_upload_that_is_refused_anyway_is_not_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    [token] = await tokens_of(server, 1)
    read_bytes: list[int] = []
    read = RequestBodies.read

    async def noted(*of: Any, **how: Any) -> Any:
        got = await read(*of, **how)
        read_bytes.append(len(got) if isinstance(got, bytes) else 0)
        return got

    monkeypatch.setattr(RequestBodies, "read", noted)
    raw: Any = server.channel
    parts = raw.stream_unary("/tasklogs.v1.TaskAgents/UploadLogSnapshotInParts")
    under_way = parts(metadata=bearing(token))
    part = pb.UploadLogSnapshotInPartsRequest()
    part.entries.add(id=0, type=1, content="x").time.seconds = 1
    await under_way.write(part.SerializeToString())
    await until(lambda: bool(read_bytes))
    read_bytes.clear()

    refusals = [await upload(server, token, entries(MESSAGES)) for _ in range(3)]

    under_way.cancel()
    assert [one and one.code for one in refusals] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
    assert all(one and "another upload is under way" in str(one) for one in refusals)
    assert read_bytes == []
