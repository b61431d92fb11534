"""Any text of a task app comes back unchanged: through the agent, Postgres, pages and follows.

The exception is lone surrogates, which UTF-8 cannot hold: they become U+FFFD.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tasklogs import CaughtUp, EntriesChanged, EpochStarted, TaskLogsClient, TaskView
from tasklogs.v1.types_pb2 import TASK_STATUS_ACTIVE as ACTIVE
from tests.agent.conftest import until
from tests.agent.test_with_the_server import agent_of, create, until_status
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.server import MakeServer

CONTENTS = [
    "\x00",
    "a\x00b\x00\x00",
    "".join(map(chr, range(0x20))),
    "".join(map(chr, range(0x7F, 0xA0))),
    "\x1b]52;c;cm0gLXJmIH4K\x07\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\\x9b2J",
    "\u202egnp\u202c\u2066\u2069\u200e\u200f\u061c\u2028\u2029",
    "\U0001f642\U0001f469\u200d\U0001f469\u200d\U0001f467\U0001f1e6\U0001f1f9\U0010ffff\U00010000",
    "\ufeff\ufffd\ufffe\uffff\u0000\ue000",
    "e\u0301 \u00e9 \u1100\u1161 " + "a" + "\u0301" * 1000,
    "\r\n\r\n\n\r \t",
    '"\\u0000\\ud800" \\x1b {"id":0,"content":"x"}],"messages":[ data: \n\ndata: x\n',
    "%s %d {0} ${x} `x` $(x) '; DROP TABLE entries; -- [red]:smile:[/red]",
]
GROWN = "".join(CONTENTS) * 3


@pytest.fixture
async def app() -> AsyncIterator[FakeTaskApp]:
    async with FakeTaskApp(interval_seconds=0.005) as fake:
        yield fake


@asynccontextmanager
async def client_of(app: FakeTaskApp, make_server: MakeServer) -> AsyncIterator[TaskLogsClient]:
    """Run a server and the agent of a task app. Yields a client once the task is active."""
    async with (
        make_server() as server,
        agent_of(await create(server), server.address, app),
        TaskLogsClient(server.address) as client,
    ):
        await until_status(server, ACTIVE)
        yield client


@pytest.mark.parametrize("page_size", [1, 5, 100])
async def test_any_text_is_read_unchanged(
    app: FakeTaskApp, make_server: MakeServer, page_size: int
) -> None:
    app.become_ready()
    for number, content in enumerate(CONTENTS):
        app.say("user" if number % 2 else "agent", content)
    async with client_of(app, make_server) as client:
        log = await client.get("local/demo", page_size=page_size)
        assert [entry.content for entry in await log.all()] == ["", *CONTENTS]


async def test_an_entry_that_grows_byte_by_byte_is_followed_as_it_grows(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    """Deltas begin and end inside code points and graphemes."""
    app.become_ready()
    app.say("user", "go on")
    app.say("agent", "")
    async with client_of(app, make_server) as client:
        shown, printed, deltas = "", "", 0
        followed = client.follow("local/demo")
        async for event in followed:
            if isinstance(event, CaughtUp):
                break
        for end in range(0, len(GROWN), 7):
            # The last code point changes each time: the kept prefix ends where the two differ.
            app.redraw(GROWN[:end] + chr(0x1F600 + end % 64))
            app.tick()
            await asyncio.sleep(0.001)
        app.redraw(GROWN)
        app.tick()
        async for event in followed:
            assert not isinstance(event, EpochStarted)
            if isinstance(event, EntriesChanged):
                for change in event.changes:
                    shown = change.entry.content
                    deltas += 1
                    if change.appended is not None:
                        printed += change.appended
                    else:
                        printed = printed[: change.kept] + shown[change.kept :]
                    assert printed == shown
            if shown == GROWN:
                break
        await followed.aclose()
        again = await client.get("local/demo", tail=1)
        assert [entry.content for entry in await again.all()] == [GROWN]
    assert deltas > 1


async def test_lone_surrogates_come_back_as_replacement_characters(
    app: FakeTaskApp, make_server: MakeServer
) -> None:
    app.become_ready()
    app.say("user", "\ud800")
    app.say("agent", "a\udfff\ud800b\U0001f642")
    async with client_of(app, make_server) as client:
        read = await (await client.get("local/demo")).all()
        assert [entry.content for entry in read] == ["", "\ufffd", "a\ufffd\ufffdb\U0001f642"]
        epoch = (await client.get("local/demo")).epoch
        # The event stream and the list must say the same about the entry.
        app.grow("\ud83d")
        app.tick()
        fetches = app.fetches
        await until(lambda: app.fetches > fetches or app.queued == 0)
        log = await client.get("local/demo", tail=1)
        assert [entry.content for entry in await log.all()] == ["a\ufffd\ufffdb\U0001f642\ufffd"]
        assert log.epoch == epoch


async def test_each_text_of_a_task_is_kept_unchanged_or_refused(
    make_server: MakeServer,
) -> None:
    prompt = "".join(CONTENTS)
    async with make_server() as server, TaskLogsClient(server.address) as client:
        await client.create_task("demo", prompt=prompt)
        assert (await client.get_task("local/demo")).prompt == prompt
        listed = client.list_tasks(view=TaskView.FULL)
        assert [task.prompt async for task in listed] == [prompt]
