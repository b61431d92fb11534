"""A workspace dies without warning: SIGKILL of the task app and the agent together.

The snapshot has everything that the task app showed 250 ms before the kill. On a busy machine the
limit is higher, by the time that one process hop and one commit then take. Both programs are
separate processes. The test records the task app's events with their times. By hand:
WORKSPACE_KILLS=200 pytest <this file>
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import httpx_sse
import pytest

from tasklogs.v1 import task_logs_pb2, tasks_pb2, types_pb2
from tests.support.fixtures.conditions import until
from tests.support.fixtures.pace import pace_of
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.server import Server

_ROOT = Path(__file__).parents[3]
_TASKLOGS = Path(sys.executable).with_name("tasklogs")
_GRACE_SECONDS = 0.25
_KILLS = int(os.environ.get("WORKSPACE_KILLS", "5"))


@dataclass
class Ledger:
    """What the task app showed: time, id and content, in order."""

    shown: list[tuple[float, int, str]] = field(default_factory=list)

    async def keep(self, url: str) -> None:
        """Record every event until cancelled or the task app is gone."""
        async with httpx.AsyncClient(timeout=None, trust_env=False) as client:
            try:
                async with httpx_sse.aconnect_sse(client, "GET", f"{url}/events") as source:
                    async for event in source.aiter_sse():
                        if event.event == "message_update":
                            body = json.loads(event.data)
                            entry = (time.monotonic(), body["id"], body["message"])
                            self.shown.append(entry)
            except httpx.HTTPError:
                return

    @property
    def begins(self) -> float:
        return self.shown[0][0]

    def at(self, t: float) -> dict[int, str]:
        """Return the conversation as it was shown at a time."""
        return {number: content for when, number, content in self.shown if when <= t}

    def later_than(self, t: float, number: int) -> set[str]:
        """Return every content that an entry had at a time and after it."""
        state = self.at(t).get(number)
        since = {content for when, one, content in self.shown if one == number and when > t}
        return since if state is None else since | {state}


@asynccontextmanager
async def process(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command until the block ends."""
    running = await asyncio.create_subprocess_exec(
        *command,
        cwd=_ROOT,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


async def snapshot(server: Server, task: str) -> task_logs_pb2.GetTaskLogsResponse:
    request = task_logs_pb2.GetTaskLogsRequest(task=task)
    answer: task_logs_pb2.GetTaskLogsResponse = await server.logs.GetTaskLogs(request)
    return answer


@pytest.mark.parametrize("seed", range(_KILLS))
async def test_the_snapshot_has_what_was_shown_250_ms_before_a_sigkill_of_both(
    server: Server, seed: int
) -> None:
    chance = random.Random(seed)
    made = await server.create_task()
    port = lasting_port()
    url = f"http://127.0.0.1:{port}"
    ledger = Ledger()
    async with (
        process(sys.executable, "-m", "tests.support.fakes.task_app", f"--port={port}") as app,
        process(
            str(_TASKLOGS),
            "agent",
            f"--server={server.address}",
            f"--agentapi-url={url}",
            TASKLOGS_AGENT_TOKEN=made.agent_token,
        ) as agent,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as user,
        pace_of(server.dsn) as pace,
    ):

        async def answers() -> bool:
            try:
                return bool((await user.get("/status")).json()["status"] == "stable")
            except httpx.HTTPError:
                return False

        async def has_stored() -> bool:
            return bool((await snapshot(server, made.task.id)).logs)

        await until(answers)
        await until(has_stored)
        watching = asyncio.create_task(ledger.keep(url))
        await until(lambda: bool(ledger.shown))
        posting = asyncio.create_task(_talk(user, chance))
        await asyncio.sleep(chance.uniform(0.4, 2.5))  # the random time of the kill, not a wait
        killed_at = time.monotonic()
        for victim in (agent, app):
            victim.kill()
        await asyncio.gather(watching, posting)

    await server.tasks.ReportBuild(
        tasks_pb2.ReportBuildRequest(
            task=made.task.id,
            build_number=1,
            transition=types_pb2.BUILD_TRANSITION_STOP,
            job_status=types_pb2.JOB_STATUS_SUCCEEDED,
        )
    )
    stored = await snapshot(server, made.task.id)
    assert stored.snapshot
    assert stored.HasField("snapshot_at")
    contents = {entry.id: entry.content for entry in stored.logs}
    late = _GRACE_SECONDS + pace.slowest_since(killed_at - 1)
    sure = max(killed_at - late, ledger.begins)  # the initial conversation was stored before
    for number in ledger.at(sure):
        assert contents.get(number) in ledger.later_than(sure, number)


async def _talk(user: httpx.AsyncClient, chance: random.Random) -> None:
    while True:
        question = "tell me more " * chance.randint(1, 20)
        try:
            await user.post("/message", json={"content": question, "type": "user"})
        except httpx.HTTPError:
            return
