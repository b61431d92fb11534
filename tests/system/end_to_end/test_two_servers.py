"""Two server processes on one database, and the real agent at one of them: it freezes, and dies."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tasklogs.errors import TaskLogsRpcError
from tasklogs.v1 import task_logs_pb2 as pb
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.nats_cluster import nats_cluster
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.reports import TASK, make_active
from tests.support.fixtures.server import Server
from tests.system.end_to_end.programs import Program, agent_command, program, serve_command


@dataclass
class Scene:
    """The agent of an ACTIVE task is at `there`. The callers of the test are at `here`."""

    app: FakeTaskApp
    here: Server
    there: Program


@pytest.fixture(params=["postgres", "nats"])
async def scene(
    request: pytest.FixtureRequest, database: str, tmp_path: Path
) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        bus = "postgres"
        if request.param == "nats":
            bus = ",".join((await stack.enter_async_context(nats_cluster())).urls)
        app = await stack.enter_async_context(FakeTaskApp())
        app.become_ready()
        ports = lasting_port(), lasting_port()
        there, _ = [
            await stack.enter_async_context(
                program(
                    tmp_path / name,
                    *serve_command(port, database),
                    TASKLOGS_BUS=bus,
                    TASKLOGS_AGENT_WAIT="2",
                    TASKLOGS_SYNC_TIMEOUT="4",
                )
            )
            for name, port in zip(("there", "here"), ports, strict=True)
        ]
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}")
        )
        here = Server(f"127.0.0.1:{ports[1]}", database, channel)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await channel.channel_ready()
        token = (await here.create_task()).agent_token
        await make_active(here)
        await stack.enter_async_context(
            program(
                tmp_path / "agent",
                *agent_command(f"127.0.0.1:{ports[0]}", app.url),
                TASKLOGS_AGENT_TOKEN=token,
            )
        )
        yield Scene(app, here, there)


async def contents(server: Server) -> list[str] | str:
    """Return what a live read shows, or the reason of its refusal."""
    request = pb.GetTaskLogsRequest(task=TASK, source=pb.LOG_SOURCE_LIVE)
    try:
        answer = await server.logs.GetTaskLogs(request, timeout=DEADLINE_SECONDS)
    except grpc.aio.AioRpcError as error:
        return TaskLogsRpcError.from_rpc_error(error).reason or error.details() or ""
    return [one.content for one in answer.logs]


def shown(app: FakeTaskApp) -> list[str]:
    return [message.content for message in app.messages]


async def is_live(scene: Scene) -> bool:
    before = shown(scene.app)
    answer = await contents(scene.here)
    assert isinstance(answer, str) or len(answer) >= len(before)
    return not isinstance(answer, str)


async def test_a_live_read_is_right_or_refused_whatever_happens_to_the_other_process(
    scene: Scene,
) -> None:
    await until(lambda: is_live(scene))
    for number in range(3):
        scene.app.say("user", f"question {number}")
        assert await contents(scene.here) == shown(scene.app)

    scene.there.signal(signal.SIGSTOP)
    try:
        scene.app.say("user", "while it is frozen")
        assert await contents(scene.here) in ("AGENT_UNREACHABLE", "TASK_APP_ERROR")
    finally:
        scene.there.signal(signal.SIGCONT)
    await until(lambda: is_live(scene))
    assert await contents(scene.here) == shown(scene.app)

    await scene.there.kill()
    scene.app.say("user", "while it is away")
    assert await contents(scene.here) in ("AGENT_UNREACHABLE", "TASK_APP_ERROR")
    await scene.there.start()
    await until(lambda: is_live(scene))
    assert await contents(scene.here) == shown(scene.app)
