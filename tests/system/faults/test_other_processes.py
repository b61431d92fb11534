"""Any process answers for any task: the agent is at one server, the callers are at another.

No feed polls and no audit runs by itself: what another process did is known by its notes alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator

import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.ingest import session_audit
from tasklogs_server.reads import feed
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.reports import TASK, make_active
from tests.support.fixtures.server import MakeServer, Server


@pytest.fixture(autouse=True)
def notes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_audit, "AUDIT_SECONDS", 3600)
    monkeypatch.setattr(feed, "_POLL_SECONDS", 3600)


@pytest.fixture
async def here(make_server: MakeServer) -> AsyncIterator[Server]:
    async with make_server(agent_wait="0.3") as running:
        yield running


@pytest.fixture
async def there(make_server: MakeServer, here: Server) -> AsyncIterator[Server]:
    async with make_server() as running:
        yield running


@pytest.fixture
async def token(here: Server) -> str:
    made = await here.create_task()
    await make_active(here)
    return made.agent_token


async def read_until(
    follow: AsyncIterable[pb.FollowTaskLogsResponse], content: str
) -> pb.FollowTaskLogsResponse:
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for message in follow:
            if any(one.content == content for one in message.entries.logs):
                return message
    raise AssertionError("the follow ended")


async def test_a_follow_gets_what_an_agent_sends_to_another_process(
    here: Server, there: Server, token: str
) -> None:
    async with ScriptedAgent.connect(there, token, build_number=1) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "first")])
        await agent.acked()
        follow = here.logs.FollowTaskLogs(pb.FollowTaskLogsRequest(task=TASK))
        try:
            await read_until(follow, "first")
            for number in range(1, 20):
                await agent.append(entries=[log_entry(number, f"entry {number}")])
                await read_until(follow, f"entry {number}")
        finally:
            follow.cancel()
