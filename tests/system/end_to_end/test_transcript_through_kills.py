"""SIGKILL of the agent, the server and Postgres while a transcript gets what a real agent wrote.

TRANSCRIPT_ROUNDS=20 runs more rounds than CI does. A round has a recording and a seed of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import grpc
import pytest

from tasklogs import LogSource, TaskLogsClient
from tasklogs.errors import TaskLogsRpcError
from tests.agents.expected import as_scripted, expected, place
from tests.agents.recording import Recording, in_steps, replay
from tests.agents.scenario import Said
from tests.agents.table import source
from tests.cli.command import TASKLOGS
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.postgres import PostgresServer
from tests.system.end_to_end.programs import Program, program, serve_command

T = TypeVar("T")

_NAMES = ("claude-code", "acp-gemini", "codex", "opencode", "gemini", "acp-claude-code", "aider")
_ROUNDS = int(os.environ.get("TRANSCRIPT_ROUNDS", "2"))
_TASK = "local/demo"
# The longest waits of an agent between two attempts, twice, and slack.
_AGREE_SECONDS = 90.0
_KILLS = 6

pytestmark = pytest.mark.timeout(300)


@dataclass
class Deployment:
    """All processes but the one that writes the transcript. `name`: the AI agent that does."""

    name: str
    server: Program
    postgres: PostgresServer
    agent: Program
    client: TaskLogsClient
    chance: random.Random

    async def kill_one(self) -> None:
        """Kill one part, and start it again a moment later."""
        part = self.chance.choice([self._server, self._postgres, self._agent])
        await part(self.chance.uniform(0.0, 0.3))

    async def _server(self, away_seconds: float) -> None:
        await _killed(self.server, away_seconds)

    async def _agent(self, away_seconds: float) -> None:
        await _killed(self.agent, away_seconds)

    async def _postgres(self, away_seconds: float) -> None:
        await asyncio.to_thread(self.postgres.kill)
        await asyncio.sleep(away_seconds)
        await asyncio.to_thread(self.postgres.start)

    async def live(self) -> list[Said]:
        """Read live, as soon as everything has recovered."""
        return await _recovered(lambda: self._read(LogSource.LIVE))

    async def epochs(self) -> list[list[Said]]:
        """Read what is stored of each epoch."""

        async def read() -> list[list[Said]]:
            newest = (await self.client.get(_TASK, source=LogSource.SNAPSHOT)).epoch
            return [await self._read(LogSource.SNAPSHOT, epoch) for epoch in range(1, newest + 1)]

        return await _recovered(read)

    async def _read(self, source: LogSource, epoch: int | None = None) -> list[Said]:
        log = await self.client.get(_TASK, source=source, epoch=epoch)
        entries = [Said(entry.type, entry.content, entry.name) for entry in await log.all()]
        return as_scripted(self.name, entries)


async def _killed(running: Program, away_seconds: float) -> None:
    await running.kill()
    await asyncio.sleep(away_seconds)
    await running.start()


async def _recovered(read: Callable[[], Awaitable[T]]) -> T:
    async with asyncio.timeout(_AGREE_SECONDS):
        while True:
            try:
                return await read()
            except TaskLogsRpcError:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def deployed(
    postgres: PostgresServer, directory: Path, name: str, chance: random.Random
) -> AsyncIterator[Deployment]:
    port = lasting_port()
    address = f"127.0.0.1:{port}"
    timeout = timedelta(seconds=5)
    async with (
        program(directory / "server", *serve_command(port, postgres.dsn())) as server,
        server.supervised(),
        TaskLogsClient(address, timeout=timeout) as client,
    ):
        async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(DEADLINE_SECONDS):
            await channel.channel_ready()
        token = (await client.create_task("demo", standalone=True)).agent_token
        command = (str(TASKLOGS), "agent", f"--server={address}", f"--source={source(name)}")
        transcript = f"--transcript={place(name, directory / 'transcripts')}"
        variables = {"TASKLOGS_AGENT_TOKEN": token}
        async with program(directory / "agent", *command, transcript, **variables) as agent:
            yield Deployment(name, server, postgres, agent, client, chance)


@pytest.mark.parametrize("number", range(_ROUNDS))
async def test_a_transcript_is_stored_once_and_in_order(
    postgres_server: PostgresServer, tmp_path: Path, number: int
) -> None:
    name = _NAMES[number % len(_NAMES)]
    chance = random.Random(number)
    steps = [step for phase in Recording.load(name).phases for step in in_steps(phase)]
    kills = sorted(chance.choices(range(len(steps)), k=_KILLS))
    transcripts = tmp_path / "transcripts"
    transcripts.mkdir()
    async with deployed(postgres_server, tmp_path, name, chance) as deployment:
        has_begun = False
        for at, step in enumerate(steps):
            if step.deleted:  # what no agent has read is gone then
                await deployment.live()
            replay(step, transcripts)
            if not has_begun:  # an agent without a log begins with the newest session
                has_begun = bool(await deployment.live())
            await asyncio.sleep(chance.choice([0.0, 0.002, 0.02]))
            for _ in range(kills.count(at)):
                await deployment.kill_one()
        said = await deployment.live()
        assert said == expected(name)[-1]
        assert await deployment.epochs() == expected(name)
