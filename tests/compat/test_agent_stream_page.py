"""docs/agent-stream.md: its session in bytes and its example, on a real server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import task_logs_pb2, types_pb2
from tests.support.fixtures.agent_stream import log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import Server

PAGE = Path(__file__).parents[2] / "docs/agent-stream.md"
INPUT, OUTPUT = types_pb2.TASK_LOG_TYPE_INPUT, types_pb2.TASK_LOG_TYPE_OUTPUT
TOOL_CALL = types_pb2.TASK_LOG_TYPE_TOOL_CALL


def session_of_the_page() -> list[tuple[str, bytes]]:
    """Return who says which bytes, as a reader would type them from the page."""
    [block] = re.findall(
        r"<!-- a session in bytes, by make docs -->\s*```text\n(.*?)```",
        PAGE.read_text(),
        re.DOTALL,
    )
    said: list[tuple[str, bytes]] = []
    for line in block.splitlines():
        if line and not line.startswith(" "):
            said.append((line.split()[0], b""))
        elif line:
            hex_ = re.match(r"\s+((?:[0-9a-f]{2} ?)+)(?:\s|$)", line)
            assert hex_, line
            who, before = said[-1]
            said[-1] = who, before + bytes.fromhex(hex_[1])
    return said


def unframed(data: bytes) -> bytes:
    """Return the message in gRPC's frame."""
    assert data[0] == 0
    assert int.from_bytes(data[1:5]) == len(data) - 5
    return data[5:]


async def test_the_session_of_the_page_is_what_a_server_says(server: Server) -> None:
    made = await server.create_task(standalone=True)
    connect: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = server.channel.stream_stream(
        "/tasklogs.v1.TaskAgents/Connect"
    )
    call: Any = connect(metadata=(("authorization", f"Bearer {made.agent_token}"),))
    said = session_of_the_page()
    assert [who for who, _ in said].count("server") == 4

    async with asyncio.timeout(DEADLINE_SECONDS):
        for who, data in said:
            if who == "agent":
                await call.write(unframed(data))
                continue
            answer = pb.ServerMessage.FromString(await call.read())
            assert comparable(answer) == comparable(pb.ServerMessage.FromString(unframed(data)))
        assert await call.read() == grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    assert await stored(server) == ["What is 6 times 7?", "It is 42."]


def comparable(message: pb.ServerMessage) -> pb.ServerMessage:
    """Leave out what depends on the server: the number of the session, and later features."""
    copy = pb.ServerMessage()
    copy.CopyFrom(message)
    if copy.HasField("welcome"):
        copy.welcome.ClearField("session")
        assert {"content_delta_pieces", "entry_names"} <= set(copy.welcome.features)
        del copy.welcome.features[:]
    return copy


async def test_the_example_of_the_page_stores_a_conversation_and_then_only_what_is_new(
    server: Server,
) -> None:
    made = await server.create_task(standalone=True)

    async def store(*entries: types_pb2.TaskLogEntry) -> int:
        return await asyncio.to_thread(run_example, server.address, made.agent_token, entries)

    question = log_entry(0, "What is 6 times 7?", type_=INPUT)
    call = log_entry(1, "6*7", type_=TOOL_CALL)
    call.name, call.call_id, call.source_id = "calculator", "c1", "m1"
    begun, whole = log_entry(2, "Es ist "), log_entry(2, "Es ist zweiundvierzig. ✓")

    assert await store(question, call, begun) == 4  # the epoch, and three entries
    assert await store(question, call, begun) == 0
    assert await store(question, call, whole) == 1
    assert await store(question, call, whole, log_entry(3, "next", type_=INPUT)) == 1
    assert await contents_and_epoch(server) == (
        ["What is 6 times 7?", "6*7", "Es ist zweiundvierzig. ✓", "next"],
        1,
    )
    # Another conversation opens the next epoch.
    assert await store(log_entry(0, "hello", type_=INPUT)) == 2
    assert await contents_and_epoch(server) == (["hello"], 2)


def run_example(address: str, token: str, entries: Sequence[types_pb2.TaskLogEntry]) -> int:
    """Run the page's program as it is."""
    [program] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(program, str(PAGE), "exec"), names)
    store: Callable[..., int] = names["store"]
    with grpc.insecure_channel(address) as channel:
        return store(channel, token, list(entries))


async def contents_and_epoch(server: Server) -> tuple[list[str], int]:
    request = task_logs_pb2.GetTaskLogsRequest(
        task="local/demo", source=task_logs_pb2.LOG_SOURCE_SNAPSHOT
    )
    answer = await server.logs.GetTaskLogs(request)
    return [entry.content for entry in answer.logs], answer.epoch


async def stored(server: Server) -> list[str]:
    return (await contents_and_epoch(server))[0]
