"""A task app, a server and an agent between them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tasklogs.agent.run import Agent, Options
from tasklogs.agent.settings import Settings
from tests.support.fakes.agent_server import FakeServer
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import DEADLINE_SECONDS

FAST = Settings(
    # Fetches keep the real time-out: no test may depend on how busy the machine is.
    fetch_fallback_seconds=1.0,
    sync_timeout_seconds=30.0,
    probe_timeout_seconds=30.0,
    probe_interval_seconds=0.02,
    unhealthy_after_seconds=0.2,
    backoff_first_seconds=0.01,
    backoff_cap_seconds=0.05,
    rotation_interval_seconds=0.02,
    superseded_wait_seconds=(0.3, 0.4),
    # Longer than any test waits: one that needs all of it fails.
    goodbye_timeout_seconds=3 * DEADLINE_SECONDS,
    goodbye_sync_seconds=2 * DEADLINE_SECONDS,
)


async def until(condition: Callable[[], object], timeout: float = DEADLINE_SECONDS) -> None:
    """Wait until the condition holds. Raises TimeoutError after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 (a condition of another's state)
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running_agent(
    app: FakeTaskApp,
    server: FakeServer,
    settings: Settings = FAST,
    build_number: int | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    """Run an agent; its task ends with the agent. At the end it is cancelled, as by SIGKILL."""
    options = Options(server.address, "a-token", app.url, build_number)
    agent = Agent(options, settings, rng=random.Random(7))
    task = asyncio.create_task(agent.run())
    task.agent = agent  # type: ignore[attr-defined]
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
async def app() -> AsyncIterator[FakeTaskApp]:
    async with FakeTaskApp(interval_seconds=0.005) as fake:
        yield fake


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as fake:
        yield fake


def patient(**changes: float) -> Settings:
    return replace(FAST, **changes)  # type: ignore[arg-type]
