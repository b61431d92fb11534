"""A task whose log an agent writes from transcripts, and how a test reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Self

from tasklogs import LogSource, TaskLogsClient
from tasklogs.agent.run import Agent, Options
from tasklogs.errors import TaskStateConflict, Unavailable
from tests.agent.conftest import FAST
from tests.agents.scenario import Said
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import Server

_SETTINGS = replace(FAST, look_interval_seconds=0.02)
_TASK = "local/demo"


class Log:
    """The log of one task."""

    def __init__(self, server: Server, client: TaskLogsClient, token: str) -> None:
        self._server = server
        self._client = client
        self._token = token

    @classmethod
    @asynccontextmanager
    async def open(cls, server: Server) -> AsyncIterator[Self]:
        token = (await server.create_task("demo", standalone=True)).agent_token
        timeout = timedelta(seconds=DEADLINE_SECONDS)
        async with TaskLogsClient(server.address, timeout=timeout) as client:
            yield cls(server, client, token)

    @asynccontextmanager
    async def agent(self, source: str, transcript: Path) -> AsyncIterator[None]:
        """Run an agent; at the end it is cancelled, as by SIGKILL."""
        options = Options(self._server.address, self._token, source=source, transcript=transcript)
        task = asyncio.create_task(Agent(options, _SETTINGS).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()

    async def live(self) -> list[Said]:
        """Read the current epoch from the agent, once it is there."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                try:
                    return await self._read(LogSource.LIVE)
                except (TaskStateConflict, Unavailable):  # it has not connected yet
                    await asyncio.sleep(0.01)

    async def epochs(self) -> list[list[Said]]:
        """Read what is stored of each epoch."""
        newest = (await self._client.get(_TASK, source=LogSource.SNAPSHOT)).epoch
        return [await self._read(LogSource.SNAPSHOT, epoch) for epoch in range(1, newest + 1)]

    async def _read(self, source: LogSource | None, epoch: int | None = None) -> list[Said]:
        log = await self._client.get(_TASK, source=source, epoch=epoch)
        return [Said(entry.type, entry.content, entry.name) for entry in await log.all()]
