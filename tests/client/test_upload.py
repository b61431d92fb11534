"""A whole conversation, stored at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tasklogs import Entry, TaskLogsClient
from tasklogs.errors import DeadlineExceeded, FailedPrecondition
from tests.support.fixtures.agent_stream import ScriptedAgent
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import Server

SOON = timedelta(seconds=DEADLINE_SECONDS)
MOMENT = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def conversation(count: int, size: int = 10) -> list[Entry]:
    return [
        Entry.output(f"{number} " + "x" * size, time=MOMENT + timedelta(seconds=number))
        for number in range(count)
    ]


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_longer_conversation_adds_what_is_new(server: Server, size: int) -> None:
    """Of one message, and of several."""
    made = await server.create_task("demo", standalone=True)
    whole = conversation(50, size)
    async with (
        TaskLogsClient(server.address, token=made.agent_token, timeout=SOON) as agent,
        TaskLogsClient(server.address, timeout=SOON) as client,
    ):
        await agent.upload_log(whole[:30])
        before = await agent.upload_log(whole)
        again = await agent.upload_log(whole[:40])
        log = await client.get("local/demo")
        assert again.revision == before.revision == log.revision
        assert log.epoch == 1
        assert [one.content for one in await log.all()] == [one.content for one in whole]


async def test_an_upload_is_refused_while_an_agent_is_connected(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    async with (
        ScriptedAgent.connect(server, made.agent_token),
        TaskLogsClient(server.address, token=made.agent_token, timeout=SOON) as agent,
    ):
        with pytest.raises(FailedPrecondition) as caught:
            await agent.upload_log(conversation(1))
        assert caught.value.reason == "SESSION_OPEN"


async def test_only_its_own_time_out_limits_an_upload_in_parts(server: Server) -> None:
    made = await server.create_task("demo", standalone=True)
    whole = conversation(30, 100_000)
    none = timedelta(0)
    async with TaskLogsClient(server.address, token=made.agent_token, timeout=none) as agent:
        with pytest.raises(DeadlineExceeded):
            await agent.upload_log(conversation(1))
        with pytest.raises(DeadlineExceeded):
            await agent.upload_log(whole, timeout=none)
        assert (await agent.upload_log(whole)).revision > 0
