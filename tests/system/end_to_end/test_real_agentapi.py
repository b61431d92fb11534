"""The real AgentAPI on a scripted terminal program, with a real agent, server and Postgres.

These tests are skipped where AgentAPI is not installed (`make agentapi` says why).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasklogs.agent.run import Agent, Options
from tasklogs.v1 import task_agents_pb2, task_logs_pb2, tasks_pb2, types_pb2
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.server import Server

_ROOT = Path(__file__).parents[3]
_AGENTAPI = Path(os.environ.get("TASKLOGS_AGENTAPI", _ROOT / ".tools/bin/agentapi"))
_PROGRAM = Path(__file__).with_name("scripted_terminal.py")

pytestmark = pytest.mark.skipif(
    not os.access(_AGENTAPI, os.X_OK),
    reason="no AgentAPI in .tools/bin or TASKLOGS_AGENTAPI: `make agentapi` says why",
)


class AgentApi:
    """An AgentAPI server that keeps its port over restarts."""

    def __init__(self, state_file: Path) -> None:
        self.port = lasting_port()
        self._state_file = state_file
        self._process: asyncio.subprocess.Process | None = None
        self._client = httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, *, with_state: bool = True) -> None:
        """Start it, and wait until its status is `stable`."""
        if not with_state:
            self._state_file.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            str(_AGENTAPI),
            *("server", f"--port={self.port}", f"--state-file={self._state_file}"),
            *("--", sys.executable, str(_PROGRAM)),
            # AgentAPI would take its standard input as the initial prompt.
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await self.stable()

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(how)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self._process.wait()
            self._process = None

    async def aclose(self) -> None:
        await self.stop(signal.SIGKILL)
        await self._client.aclose()

    async def post(self, content: str) -> None:
        """Post a message. Returns when AgentAPI has seen the program begin to answer."""
        response = await self._client.post("/message", json={"content": content, "type": "user"})
        response.raise_for_status()

    async def messages(self) -> list[dict[str, Any]]:
        """Return the messages that it shows."""
        response = await self._client.get("/messages")
        response.raise_for_status()
        found: list[dict[str, Any]] = response.json()["messages"]
        return found

    async def status(self) -> str:
        try:
            answer = await self._client.get("/status")
        except httpx.HTTPError:
            return "unreachable"
        return str(answer.json()["status"]) if answer.status_code == 200 else "failing"

    async def stable(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await self.status() != "stable":  # noqa: ASYNC110 (it is another process)
                await asyncio.sleep(0.05)


class Task:
    """A task whose agent serves the AgentAPI of the test."""

    def __init__(self, server: Server, agent: Agent) -> None:
        self._server = server
        self.agent = agent
        self.running = asyncio.create_task(agent.run())

    async def kill_agent(self) -> None:
        """End the agent without a goodbye."""
        self.running.cancel()
        await asyncio.wait({self.running})

    async def read(self, **fields: object) -> task_logs_pb2.GetTaskLogsResponse:
        request = task_logs_pb2.GetTaskLogsRequest(task="local/demo", **fields)  # type: ignore[arg-type]
        return await self._server.logs.GetTaskLogs(request, timeout=DEADLINE_SECONDS)

    async def until(
        self, condition: Callable[[task_logs_pb2.GetTaskLogsResponse], object]
    ) -> task_logs_pb2.GetTaskLogsResponse:
        """Read the stored log until it satisfies the condition."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                found = await self.read(source=task_logs_pb2.LOG_SOURCE_SNAPSHOT)
                if condition(found):
                    return found
                await asyncio.sleep(0.05)

    async def report_build(
        self, number: int, transition: types_pb2.BuildTransition.ValueType
    ) -> None:
        await self._server.tasks.ReportBuild(
            tasks_pb2.ReportBuildRequest(
                task="local/demo",
                build_number=number,
                transition=transition,
                job_status=types_pb2.JOB_STATUS_SUCCEEDED,
            )
        )


@pytest.fixture
async def agentapi(tmp_path: Path) -> AsyncIterator[AgentApi]:
    running = AgentApi(tmp_path / "state.json")
    try:
        await running.start()
        yield running
    finally:
        await running.aclose()


@pytest.fixture
async def task(server: Server, agentapi: AgentApi) -> AsyncIterator[Task]:
    made = await server.create_task("demo")
    agent = Agent(Options(server.address, made.agent_token, agentapi.url))
    found = Task(server, agent)
    await found.report_build(1, types_pb2.BUILD_TRANSITION_START)
    try:
        await found.until(lambda log: log.status == types_pb2.TASK_STATUS_ACTIVE)
        yield found
    finally:
        await found.kill_agent()


def said(log: task_logs_pb2.GetTaskLogsResponse) -> Sequence[tuple[int, str]]:
    return [(entry.type, entry.content.strip()) for entry in log.logs]


INPUT, OUTPUT = types_pb2.TASK_LOG_TYPE_INPUT, types_pb2.TASK_LOG_TYPE_OUTPUT


async def test_a_posted_message_is_in_the_very_next_read(agentapi: AgentApi, task: Task) -> None:
    await agentapi.post("hello")
    log = await task.read()
    assert not log.snapshot
    assert (INPUT, "hello") in said(log)
    await agentapi.stable()
    log = await task.read()
    assert [kind for kind, _ in said(log)] == [OUTPUT, INPUT, OUTPUT]
    assert "You said: hello" in said(log)[-1][1]
    assert [entry.id for entry in log.logs] == [0, 1, 2]


async def test_a_read_while_a_post_is_handled_answers_within_2_s(
    agentapi: AgentApi, task: Task
) -> None:
    await task.read()
    posting = asyncio.create_task(agentapi.post("hello"))
    try:
        while not posting.done():
            began = time.monotonic()
            log = await task.read()
            assert time.monotonic() - began < 2.0
            assert not log.snapshot
    finally:
        await posting


async def test_a_restart_with_saved_state_continues_the_epoch(
    agentapi: AgentApi, task: Task
) -> None:
    await agentapi.post("hello")
    await agentapi.stable()
    before = await task.read()
    await agentapi.stop()
    await agentapi.start()
    await agentapi.post("again")
    await agentapi.stable()
    after = await task.until(lambda log: (INPUT, "again") in said(log) and len(log.logs) == 5)
    assert after.epoch == before.epoch == 1
    assert said(after)[: len(before.logs)] == said(before)


async def test_a_restart_without_saved_state_opens_the_next_epoch(
    agentapi: AgentApi, task: Task
) -> None:
    await agentapi.post("hello")
    await agentapi.stable()
    before = await task.read()
    await agentapi.stop(signal.SIGKILL)
    await agentapi.start(with_state=False)
    after = await task.until(lambda log: log.epoch == 2)
    assert (INPUT, "hello") not in said(after)
    earlier = await task.read(epoch=1)
    assert said(earlier) == said(before)


async def test_the_snapshot_has_what_was_shown_before_everything_was_killed(
    agentapi: AgentApi, task: Task
) -> None:
    await agentapi.post("hello")
    shown = await agentapi.messages()
    await asyncio.sleep(0.25)  # the promise covers what AgentAPI showed this long before the kill
    await task.kill_agent()
    await agentapi.stop(signal.SIGKILL)
    await task.report_build(2, types_pb2.BUILD_TRANSITION_STOP)
    log = await task.read()
    assert log.snapshot
    assert (INPUT, "hello") in said(log)
    assert len(log.logs) >= len(shown)


async def test_a_goodbye_pauses_the_task_after_its_last_entries(
    agentapi: AgentApi, task: Task
) -> None:
    await agentapi.post("hello")
    await agentapi.stable()
    task.agent.departure.want(task_agents_pb2.Goodbye.REASON_PAUSING)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await task.running
    log = await task.read(source=task_logs_pb2.LOG_SOURCE_SNAPSHOT)
    shown = await agentapi.messages()
    assert [entry.content for entry in log.logs] == [message["content"] for message in shown]
    assert len(shown) == 3
