"""Recorded screens of terminal agents: the bytes on each wire, and the server's CPU per change.

A fake task app replays them to a real `tasklogs agent`; a follow of the client library reads what
the server makes of it. Each wire is a proxy that counts bytes in both directions.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.cpu import CpuCost
from bench.processes import end, environment, port_of
from bench.result import Result
from bench.stage import NewTask, Stage
from tasklogs.client.client import TaskLogsClient
from tasklogs.client.events import EntriesChanged
from tasklogs.enums import LogSource
from tests.support.fakes.faulty_proxy import Direction, FaultyProxy
from tests.support.fakes.recording import TERMINAL_AGENT_1, TERMINAL_AGENT_2, events_of, replay
from tests.support.fakes.task_app import FakeTaskApp, Message
from tests.support.fixtures.conditions import until

_HISTORY = 40
_SCREEN = 60
"""A full one of the first recording, by its number."""
_TARGET_KB = {TERMINAL_AGENT_1: 16, TERMINAL_AGENT_2: 8}


@dataclass(frozen=True)
class _Replay:
    sent: int
    """Bytes from the agent to the server."""
    received: int
    """Bytes from the server to the follower."""
    changes: int
    cost: CpuCost


async def recorded_screens(stage: Stage) -> list[Result]:
    """Both recordings, at the speed at which they were recorded."""
    rows: list[Result] = []
    for number, (recording, target) in enumerate(_TARGET_KB.items(), 1):
        done = await _replay(stage, recording)
        what = f"recorded screens of terminal agent {number}: bytes"
        note = f"all of HTTP/2, and its start; {done.changes:,} changes; CPU per change"
        rows += [
            _row(f"{what} from the agent to the server", done.sent, target, done.cost, note),
            _row(f"{what} from the server to a follower", done.received, target, done.cost, note),
        ]
    return [*rows, *await _history(stage)]


async def _history(stage: Stage) -> list[Result]:
    """A task app that already has a long conversation when the agent connects."""
    (task,) = await stage.create_tasks(1, standalone=True)
    port = port_of(stage.ours)
    screen = [event.content for event in events_of(TERMINAL_AGENT_1) if isinstance(event, Message)][
        _SCREEN
    ]
    async with FaultyProxy(port) as agent_wire, FaultyProxy(port) as follow_wire:
        async with FakeTaskApp() as app, _Shown(follow_wire.address, task) as shown:
            for number in range(_HISTORY):
                app.say("agent" if number % 2 else "user", f"{number}\n{screen}")
            app.become_ready()
            before = stage.cpu(stage.ours)
            async with _agent(agent_wire, task, app):
                await until(lambda: shown.contents == {one.id: one.content for one in app.messages})
                cost = (stage.cpu(stage.ours) - before).per(_HISTORY)
        what = f"a conversation of {_HISTORY} screens of 80 KB that is there at the start: bytes"
        sent = agent_wire.passed_bytes[Direction.TO_TARGET]
        received = follow_wire.passed_bytes[Direction.TO_CALLER]
    note = "all of HTTP/2; CPU per screen"
    return [
        _row(f"{what} from the agent to the server", sent, None, cost, note),
        _row(f"{what} from the server to a follower", received, None, cost, note),
    ]


async def _replay(stage: Stage, recording: Path) -> _Replay:
    (task,) = await stage.create_tasks(1, standalone=True)
    port = port_of(stage.ours)
    async with (
        FaultyProxy(port) as agent_wire,
        FaultyProxy(port) as follow_wire,
        FakeTaskApp() as app,
        _agent(agent_wire, task, app),
        _Shown(follow_wire.address, task) as shown,
    ):
        await until(lambda: app.subscriptions > 0)
        before = stage.cpu(stage.ours)
        await replay(app, recording, speed=None if stage.quick else 1.0)
        await until(lambda: shown.contents == {one.id: one.content for one in app.messages})
        return _Replay(
            agent_wire.passed_bytes[Direction.TO_TARGET],
            follow_wire.passed_bytes[Direction.TO_CALLER],
            shown.changes,
            (stage.cpu(stage.ours) - before).per(shown.changes),
        )


@asynccontextmanager
async def _agent(wire: FaultyProxy, task: NewTask, app: FakeTaskApp) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("tasklogs")),
        *("agent", "--server", wire.address, "--agentapi-url", app.url),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**environment(), "TASKLOGS_AGENT_TOKEN": task.token},
    )
    try:
        yield
    finally:
        await end(process)


class _Shown:
    """A follower: the content of each entry, and how often one changed."""

    def __init__(self, address: str, task: NewTask) -> None:
        self._address = address
        self._task = task
        self._stack = AsyncExitStack()
        self._following: asyncio.Task[None] | None = None
        self.contents: dict[int, str] = {}
        self.changes = 0

    async def __aenter__(self) -> _Shown:
        client = await self._stack.enter_async_context(TaskLogsClient(self._address))
        self._following = asyncio.create_task(self._follow(client))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._following is not None
        self._following.cancel()
        await asyncio.wait({self._following})
        await self._stack.aclose()

    async def _follow(self, client: TaskLogsClient) -> None:
        async for event in client.follow(str(self._task.id), source=LogSource.SNAPSHOT):
            if isinstance(event, EntriesChanged):
                for change in event.changes:
                    self.contents[change.entry.id] = change.entry.content
                    self.changes += 1


def _row(what: str, size: int, target: float | None, cost: CpuCost, note: str) -> Result:
    return Result(
        what=what,
        ours=size / 1000,
        unit="KB",
        target=target,
        at_most=True,
        note=note,
        cpu=cost,
    )
