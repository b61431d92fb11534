from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import grpc
import pytest

from tasklogs.agent.run import Agent, Options
from tasklogs.publish.departure import Departure
from tasklogs.publish.own_token import OwnToken, Wait
from tasklogs.publish.reconnect import Fatal
from tests.agent.conftest import FAST
from tests.support.fakes.agent_server import FakeServer, Refusal
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import DEADLINE_SECONDS

REFUSED = Refusal(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


def token(found: str = "old", **settings: float) -> OwnToken:
    changed = replace(FAST, **settings)  # type: ignore[arg-type]
    return OwnToken("old", lambda: found, settings=changed, rng=random.Random(7))


async def test_the_refused_token_is_tried_again_until_the_time_is_over() -> None:
    own = token(rotation_timeout_seconds=0.15, rotation_retry_seconds=0.06)
    waits = [await own.changed(Departure()) for _ in range(3)]
    assert waits[0] is Wait.TRY_AGAIN
    assert waits[-1] is Wait.GIVE_UP


async def test_a_token_that_was_accepted_has_the_whole_time_again() -> None:
    own = token(rotation_timeout_seconds=0.1, rotation_retry_seconds=0.07)
    for _ in range(4):
        assert await own.changed(Departure()) is Wait.TRY_AGAIN
        own.accepted()


async def test_a_new_token_ends_the_wait() -> None:
    own = token("new", rotation_timeout_seconds=DEADLINE_SECONDS)
    assert await own.changed(Departure()) is Wait.CHANGED
    assert own.value == "new"


async def test_a_token_that_is_good_again_is_found(app: FakeTaskApp, server: FakeServer) -> None:
    """The server was wrong for a while: it was restored from an older backup, for instance."""
    app.become_ready()
    server.refusals = [REFUSED, REFUSED]
    settings = replace(FAST, rotation_retry_seconds=0.05)
    options = Options(server.address, "good", app.url, read_token=lambda: "good")
    task = asyncio.create_task(Agent(options, settings).run())
    try:
        await server.session()
        assert not server.refusals
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.NOT_FOUND])
async def test_only_the_server_itself_ends_an_agent(
    app: FakeTaskApp, server: FakeServer, code: grpc.StatusCode
) -> None:
    app.become_ready()
    info = "TOKEN_INVALID" if code is grpc.StatusCode.UNAUTHENTICATED else "TASK_NOT_FOUND"
    server.refusals = [*[Refusal(code, message="of a proxy")] * 3, Refusal(code, info)]
    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(Fatal):
            await Agent(Options(server.address, "a-token", app.url), FAST).run()
    assert not server.refusals


async def test_a_proxy_that_checks_tokens_gets_the_new_one(app: FakeTaskApp) -> None:
    class Gateway(FakeServer):
        """A proxy that refuses the old token in its own words, before a server."""

        async def Connect(self, messages: Any, context: Any) -> None:  # type: ignore[override]
            if dict(context.invocation_metadata())["authorization"] != "Bearer new":
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token has expired")
            await super().Connect(messages, context)

    app.become_ready()
    async with Gateway() as gateway:
        options = Options(gateway.address, "old", app.url, read_token=lambda: "new")
        task = asyncio.create_task(Agent(options, FAST).run())
        try:
            await gateway.session()
        finally:
            task.cancel()
            await asyncio.wait({task})
