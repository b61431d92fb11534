"""Bytes on the wires while a terminal agent draws its screen: agent, server and follower.

Each wire is counted by a proxy, with all of HTTP/2. At a higher speed, or on a busier machine, more
changes coalesce, so the bytes become fewer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasklogs import EntriesChanged, LogSource, TaskLogsClient
from tasklogs.v1 import task_logs_pb2 as pb
from tests.reads.follow_view import View
from tests.support.fakes.faulty_proxy import Direction, FaultyProxy
from tests.support.fakes.recording import TERMINAL_AGENT_1, TERMINAL_AGENT_2, events_of, replay
from tests.support.fakes.task_app import FakeTaskApp, Message
from tests.support.fixtures.conditions import until
from tests.support.fixtures.reports import TASK
from tests.support.fixtures.server import Server
from tests.system.end_to_end.programs import agent_command, program

SPEED = 8.0


@dataclass
class Wires:
    """A task app, its agent, the server, and a follower with the client library."""

    app: FakeTaskApp
    to_server: FaultyProxy
    to_follower: FaultyProxy
    seen: dict[int, str] = field(default_factory=dict)
    changes: int = 0

    @property
    def agent_bytes(self) -> int:
        return self.to_server.passed_bytes[Direction.TO_TARGET]

    @property
    def follower_bytes(self) -> int:
        return self.to_follower.passed_bytes[Direction.TO_CALLER]

    @property
    def shown(self) -> dict[int, str]:
        return {message.id: message.content for message in self.app.messages}

    async def follow(self, client: TaskLogsClient) -> None:
        async for event in client.follow(TASK, source=LogSource.SNAPSHOT):
            if isinstance(event, EntriesChanged):
                self.changes += len(event.changes)
                self.seen |= {entry.id: entry.content for entry in event.entries}


@pytest.fixture
async def wires(server: Server, tmp_path: Path) -> AsyncIterator[Wires]:
    token = (await server.create_task(standalone=True)).agent_token
    port = int(server.address.rsplit(":", 1)[1])
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(FakeTaskApp(interval_seconds=0.005))
        to_server = await stack.enter_async_context(FaultyProxy(port))
        to_follower = await stack.enter_async_context(FaultyProxy(port))
        wires = Wires(app, to_server, to_follower)
        client = await stack.enter_async_context(TaskLogsClient(wires.to_follower.address))
        command = agent_command(wires.to_server.address, app.url)
        await stack.enter_async_context(
            program(tmp_path / "agent.log", *command, TASKLOGS_AGENT_TOKEN=token)
        )
        following = asyncio.create_task(wires.follow(client))
        try:
            await until(lambda: app.subscriptions > 0 and wires.follower_bytes > 0)
            yield wires
        finally:
            following.cancel()
            await asyncio.wait({following})


@pytest.mark.parametrize(
    ("recording", "limit_bytes", "least_changes"),
    [(TERMINAL_AGENT_1, 16_000, 20), (TERMINAL_AGENT_2, 8_000, 10)],
    ids=["one", "two"],
)
async def test_a_terminal_agent_costs_what_changes_on_its_screen(
    wires: Wires, recording: Path, limit_bytes: int, least_changes: int
) -> None:
    await replay(wires.app, recording, speed=SPEED)
    await until(lambda: wires.seen == wires.shown)

    assert wires.changes >= least_changes
    assert wires.agent_bytes <= limit_bytes
    assert wires.follower_bytes <= limit_bytes


async def test_screens_that_change_as_fast_as_possible_arrive_as_they_are(wires: Wires) -> None:
    for recording in (TERMINAL_AGENT_1, TERMINAL_AGENT_2):
        await replay(wires.app, recording, speed=None)
        await until(lambda: wires.seen == wires.shown)


async def test_a_history_of_screens_costs_little_of_its_length_on_both_wires(
    wires: Wires,
) -> None:
    show_history(wires.app)
    await until(lambda: wires.seen == wires.shown)

    assert sum(map(len, wires.shown.values())) > 3_000_000
    assert wires.agent_bytes < 50_000
    assert wires.follower_bytes < 50_000


@pytest.mark.parametrize("passed_bytes", [7_000, 12_000, 17_000])
async def test_a_history_whose_stream_breaks_goes_on_in_the_same_epoch(
    wires: Wires, server: Server, passed_bytes: int
) -> None:
    """The store holds some of the appends that waited for one ack."""
    wires.to_server.cut_after(passed_bytes, Direction.TO_TARGET)
    show_history(wires.app)
    await until(lambda: wires.seen == wires.shown)

    assert wires.to_server.cuts == 1
    wires.app.say("user", "and now?")
    await until(lambda: wires.seen == wires.shown)
    request = pb.GetTaskLogsRequest(task=TASK, source=pb.LOG_SOURCE_SNAPSHOT, tail=1)
    assert (await server.logs.GetTaskLogs(request)).epoch == 1


def show_history(app: FakeTaskApp) -> None:
    """Let a conversation of 40 screens be there at once."""
    events = [one.content for one in events_of(TERMINAL_AGENT_1) if isinstance(one, Message)]
    for number in range(40):
        app.say("agent" if number % 2 else "user", f"{number}\n{events[60]}")
    app.become_ready()


async def test_an_answer_that_grows_costs_its_length_on_both_wires(wires: Wires) -> None:
    app = wires.app
    text = random.Random(1).randbytes(50_000).hex()  # it does not shrink to half
    app.start_over("")
    app.become_ready()
    for end in range(1000, len(text) + 1, 1000):
        app.redraw(text[:end])
        await until(lambda: wires.seen == wires.shown)

    assert wires.changes >= 100
    assert wires.agent_bytes <= 1.1 * len(text)
    assert wires.follower_bytes <= 1.1 * len(text)


async def test_a_follower_that_does_not_ask_for_it_gets_nothing_compressed(
    wires: Wires, server: Server
) -> None:
    """A client of before ignores what it does not know, and would lose it."""
    views = {deltas: View() for deltas in (True, False)}
    async with AsyncExitStack() as stack:
        for deltas, view in views.items():
            await stack.enter_async_context(_plainly(server, view, deltas=deltas))
        await replay(wires.app, TERMINAL_AGENT_2, speed=4 * SPEED)
        await until(lambda: wires.seen == wires.shown)
        shown = {(1, id_): content for id_, content in wires.shown.items()}
        await until(lambda: all(view.contents() == shown for view in views.values()))


@asynccontextmanager
async def _plainly(server: Server, view: View, *, deltas: bool) -> AsyncIterator[None]:
    async def read() -> None:
        request = pb.FollowTaskLogsRequest(task=TASK, source=pb.LOG_SOURCE_SNAPSHOT, deltas=deltas)
        async for message in server.logs.FollowTaskLogs(request):
            assert message.cursor
            assert not message.HasField("compressed")
            view.apply(message)

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        if not reading.cancelled():
            reading.result()
