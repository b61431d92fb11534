"""Compressed messages are accepted if they fit the limit, and refused before they are expanded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import psutil
import pytest

from tasklogs.v1 import tasks_pb2, tasks_pb2_grpc
from tests.support.fixtures.conditions import until
from tests.support.fixtures.ports import lasting_port
from tests.system.end_to_end.programs import Program, program, serve_command

MIB = 1024 * 1024
BOMB_BYTES = 64 * MIB
ALLOWED_GROWTH_BYTES = 32 * MIB
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")

METHODS = [
    ("unary_unary", "/tasklogs.v1.Tasks/CreateTask"),
    ("unary_unary", "/tasklogs.v1.TaskLogs/GetTaskLogs"),
    ("unary_stream", "/tasklogs.v1.TaskLogs/FollowTaskLogs"),
    ("unary_unary", "/tasklogs.v1.TaskAgents/UploadLogSnapshot"),
    ("stream_stream", "/tasklogs.v1.TaskAgents/Connect"),
    ("stream_stream", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    ("unary_unary", "/grpc.health.v1.Health/Check"),
]


@pytest.fixture
async def serving(database: str, tmp_path: Path) -> AsyncIterator[tuple[Program, str]]:
    port = lasting_port()
    async with program(tmp_path / "said", *serve_command(port, database)) as server:

        async def serves() -> bool:
            return "serving on" in server.said

        await until(serves)
        yield server, f"127.0.0.1:{port}"


def code_of(
    address: str, kind: str, method: str, message: bytes, how: grpc.Compression, token: str
) -> object:
    """Send `message` as it is, and return the status code of the call.

    Does not use asyncio: for a failed write grpc.aio hides the status that the server gave.
    """
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        made: Any = getattr(channel, kind)(method)
        sent = iter([message]) if kind.startswith("stream") else message
        try:
            metadata = [("authorization", f"Bearer {token}")] if "TaskAgents" in method else []
            answer = made(sent, compression=how, timeout=60, metadata=metadata)
            return list(answer) if kind.endswith("stream") else answer
        except grpc.RpcError as error:
            return cast("Any", error).code()


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_message_above_the_size_limit_is_refused_before_it_is_expanded(
    serving: tuple[Program, str], how: grpc.Compression
) -> None:
    server, address = serving
    async with grpc.aio.insecure_channel(address) as channel:
        tasks = tasks_pb2_grpc.TasksStub(channel)
        small = tasks_pb2.CreateTaskRequest(name="demo", prompt="x" * 60_000)
        token = (await tasks.CreateTask(small, compression=how)).agent_token
        before = _peak_bytes(server)
        bomb = bytes(BOMB_BYTES)
        for kind, method in METHODS:
            code = await asyncio.to_thread(code_of, address, kind, method, bomb, how, token)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED, method
        assert _peak_bytes(server) - before < ALLOWED_GROWTH_BYTES
        found = await tasks.GetTask(tasks_pb2.GetTaskRequest(task="local/demo"))
        assert found.prompt == small.prompt


def _peak_bytes(server: Program) -> int:
    """Return the most memory that the process ever held."""
    assert psutil.pid_exists(server.pid)
    found = _PEAK.search(Path(f"/proc/{server.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
