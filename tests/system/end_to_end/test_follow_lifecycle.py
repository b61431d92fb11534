"""One follow lasts from before the first build, through a pause, to the resumed workspace.

The follow runs through the client library and through the real grpcurl. The agent is a process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from tasklogs import TaskLogsClient
from tasklogs.v1 import types_pb2 as types
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.reports import STOP, TASK, report_build
from tests.support.fixtures.server import Server
from tests.system.end_to_end.followed_events import following
from tests.system.end_to_end.programs import Program, agent_command
from tests.system.end_to_end.test_grpcurl import GRPCURL

RUNNING, PENDING_JOB = types.JOB_STATUS_RUNNING, types.JOB_STATUS_PENDING
WORDS = ["the", "answer", "grows", "word", "by", "word"]


class Observer(Protocol):
    """A follower, of either kind."""

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the events so far make `condition` true."""
        ...

    def statuses(self) -> list[str]:
        """Return the statuses in the order in which they came, without repeats."""
        ...

    def states(self) -> dict[tuple[int, int], list[str]]:
        """Return every content that each entry had, in order, by epoch and id."""
        ...

    def has_caught_up(self) -> bool:
        """Whether it has everything that was stored when the follow began."""
        ...


async def tell(
    observer: Observer, server: Server, token: str, app: FakeTaskApp, said: Path
) -> None:
    """Play the whole life of a task. Each step begins when the observer has seen the one before."""

    async def sees(status: str) -> None:
        await observer.until(lambda: observer.statuses()[-1:] == [status])

    async def reads(entry_id: int, content: str) -> None:
        await observer.until(lambda: observer.states().get((1, entry_id), [""])[-1] == content)

    await sees("PENDING")
    await observer.until(observer.has_caught_up)
    agent = Program(said, *agent_command(server.address, app.url), TASKLOGS_AGENT_TOKEN=token)
    try:
        await report_build(server, 1, job_status=PENDING_JOB)
        await report_build(server, 1, job_status=RUNNING)
        await sees("INITIALIZING")
        await agent.start()
        app.become_ready()
        await sees("ACTIVE")
        app.say("user", "hello")
        app.say("agent", "")
        for number in range(len(WORDS)):
            app.grow(WORDS[number] + " ")
            await reads(2, " ".join(WORDS[: number + 1]) + " ")

        assert await agent.end() == 0
        await report_build(server, 2, STOP)
        await sees("PAUSED")

        await app.restart(with_state=True)
        await report_build(server, 3, job_status=RUNNING)
        await sees("INITIALIZING")
        await agent.start()
        app.become_ready()
        await sees("ACTIVE")
        app.say("user", "and now?")
        app.say("agent", "still here")
        await reads(4, "still here")
        assert await agent.end() == 0
    finally:
        if agent.is_running:
            await agent.kill()


def check(observer: Observer) -> None:
    """Check everything that the observer saw in its one call."""
    assert observer.statuses() == [
        *("PENDING", "INITIALIZING", "ACTIVE"),
        "PAUSED",
        *("INITIALIZING", "ACTIVE"),
    ]
    states = observer.states()
    assert set(states) == {(1, number) for number in range(5)}
    # The empty answer may be seen before its first word.
    assert [one for one in states[1, 2] if one] == [
        " ".join(WORDS[: number + 1]) + " " for number in range(len(WORDS))
    ]
    for entry_id, content in {0: "", 1: "hello", 3: "and now?", 4: "still here"}.items():
        assert states[1, entry_id] == [content]


@dataclass
class LibraryObserver:
    client: TaskLogsClient

    @asynccontextmanager
    async def observing(self) -> AsyncIterator[LibraryObserver]:
        async with following(self.client, TASK) as self.followed:
            yield self

    async def until(self, condition: Callable[[], bool]) -> None:
        await self.followed.wait_for(condition)

    def statuses(self) -> list[str]:
        return [one.name for one in self.followed.statuses]

    def states(self) -> dict[tuple[int, int], list[str]]:
        return self.followed.states

    def has_caught_up(self) -> bool:
        return self.followed.caught_up


@dataclass
class GrpcurlObserver:
    """Reads the JSON objects that grpcurl prints, one after another."""

    process: asyncio.subprocess.Process
    messages: list[Any] = field(default_factory=list)
    _text: str = ""

    async def until(self, condition: Callable[[], bool]) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                piece = await self.process.stdout.readline()
                assert piece, f"grpcurl ended: {self.messages[-1:]}"
                self._take(piece.decode())

    def _take(self, text: str) -> None:
        self._text += text
        # In grpcurl's indentation, an object ends at a line that is a single brace.
        if text.rstrip() == "}":
            self.messages.append(json.loads(self._text))
            self._text = ""

    def statuses(self) -> list[str]:
        seen: list[str] = []
        for message in self.messages:
            if "status" in message:
                status = message["status"]["status"].removeprefix("TASK_STATUS_")
                if seen[-1:] != [status]:
                    seen.append(status)
        return seen

    def states(self) -> dict[tuple[int, int], list[str]]:
        states: dict[tuple[int, int], list[str]] = {}
        for message in self.messages:
            entries = message.get("entries", {})
            for one in entries.get("logs", []):
                states.setdefault((entries["epoch"], one["id"]), []).append(one.get("content", ""))
        return states

    def has_caught_up(self) -> bool:
        return any("caughtUp" in message for message in self.messages)


@asynccontextmanager
async def grpcurl(server: Server) -> AsyncIterator[GrpcurlObserver]:
    process = await asyncio.create_subprocess_exec(
        str(GRPCURL),
        *("-plaintext", "-d", json.dumps({"task": TASK}), server.address),
        "tasklogs.v1.TaskLogs/FollowTaskLogs",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield GrpcurlObserver(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def app() -> AsyncIterator[FakeTaskApp]:
    async with FakeTaskApp() as running:
        yield running


async def test_the_client_library_sees_the_task_from_before_its_first_build_to_its_resumption(
    server: Server, app: FakeTaskApp, tmp_path: Path
) -> None:
    token = (await server.create_task()).agent_token
    async with (
        TaskLogsClient(server.address) as client,
        LibraryObserver(client).observing() as observer,
    ):
        await tell(observer, server, token, app, tmp_path / "agent")
        assert observer.followed.breaks == 0
    check(observer)


async def test_grpcurl_sees_the_same_in_one_call(
    server: Server, app: FakeTaskApp, tmp_path: Path
) -> None:
    token = (await server.create_task()).agent_token
    async with grpcurl(server) as observer:
        await tell(observer, server, token, app, tmp_path / "agent")
        assert observer.process.returncode is None
    check(observer)
