"""A follow of the client library while everything below it is killed and started again.

Each round kills the server, Postgres, the agent and the task app at random times. By hand:
FOLLOW_ROUNDS=20 FOLLOW_SEED=7 pytest --timeout=1200 --log-cli-level=INFO <this file>
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import httpx

from tasklogs import BuildTransition, JobStatus, LogEntry, LogSource, TaskLogsClient, TaskLogType
from tests.conformance import drivers
from tests.support.fakes.task_app import BANNER
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.postgres import PostgresServer
from tests.system.end_to_end.followed_events import Followed, following, following_elsewhere
from tests.system.end_to_end.programs import (
    Program,
    agent_command,
    program,
    serve_command,
    task_app_command,
)

ROUNDS = int(os.environ.get("FOLLOW_ROUNDS", "2"))
SEED = int(os.environ.get("FOLLOW_SEED", "1"))
TASK = "local/demo"
# From the last restart of a round to agreement: the longest waits of agent and follow, and slack.
AGREE_SECONDS = 45.0

_log = logging.getLogger(__name__)


@dataclass
class Deployment:
    """All processes, and a user who keeps asking."""

    server: Program
    postgres: PostgresServer
    agent: Program
    task_app: Program
    user: httpx.AsyncClient
    chance: random.Random
    sudden_ends: int = 0
    """How often the task app came back with less than it had shown."""
    asked: list[str] = field(default_factory=list)
    """Every question that the task app accepted."""

    async def round(self, followed: Followed) -> None:
        """Kill each part once, in random order and at random times, some during a recovery."""
        parts = [self._server, self._postgres, self._agent, self._task_app]
        self.chance.shuffle(parts)
        for part in parts:
            if self.chance.random() < 0.6:
                await followed.next_change(seconds=AGREE_SECONDS)
            # The random time of the kill itself, not a wait.
            await asyncio.sleep(self.chance.uniform(0.0, 1.2))
            await part(self.chance.uniform(0.0, 0.4))

    async def _server(self, away_seconds: float) -> None:
        await self.server.kill()
        await asyncio.sleep(away_seconds)
        await self.server.start()

    async def _postgres(self, away_seconds: float) -> None:
        dsn = self.postgres.dsn()
        await asyncio.to_thread(self.postgres.kill)
        await asyncio.sleep(away_seconds)
        await asyncio.to_thread(self.postgres.start)
        assert self.postgres.dsn() == dsn

    async def _agent(self, away_seconds: float) -> None:
        await self.agent.kill()
        await asyncio.sleep(away_seconds)
        await self.agent.start()

    async def _task_app(self, away_seconds: float) -> None:
        if self.chance.random() < 0.5:
            assert await self.task_app.end() == 0
        else:
            # The saved state is older than what it showed last.
            self.task_app.signal(signal.SIGUSR1)
            await asyncio.sleep(self.chance.uniform(0.1, 0.5))
            await self.task_app.kill()
            self.sudden_ends += 1
        await asyncio.sleep(away_seconds)
        await self.task_app.start()

    async def talk(self) -> None:
        """Ask without end, whenever the task app accepts a question."""
        number = 0
        while True:
            number += 1
            await self.ask(f"question {number}" + " and more" * self.chance.randint(0, 20))

    async def ask(self, question: str) -> None:
        """Ask until the question is accepted. A task app that starts or answers refuses it."""
        while True:
            try:
                answer = await self.user.post(
                    "/message", json={"content": question, "type": "user"}
                )
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code == 200:
                self.asked.append(question)
                return
            await asyncio.sleep(0.02)

    async def settled(self) -> list[tuple[int, str]]:
        """Wait until no answer is in progress. Return the ids and contents of the conversation."""
        async with asyncio.timeout(AGREE_SECONDS):
            while True:
                try:
                    if (await self.user.get("/status")).json()["status"] == "stable":
                        shown = (await self.user.get("/messages")).json()["messages"]
                        return [(one["id"], one["content"]) for one in shown]
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.02)


@asynccontextmanager
async def deployed(
    postgres: PostgresServer, directory: Path, chance: random.Random
) -> AsyncIterator[tuple[Deployment, str]]:
    """Run all processes, and start the task's build. Yields the server's address as well."""
    port, app_port = lasting_port(), lasting_port()
    address, app_url = f"127.0.0.1:{port}", f"http://127.0.0.1:{app_port}"
    async with program(directory / "server", *serve_command(port, postgres.dsn())) as server:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(DEADLINE_SECONDS):
            await channel.channel_ready()
        async with TaskLogsClient(address) as client:
            token = (await client.create_task("demo")).agent_token
            await client.report_build(TASK, 1, BuildTransition.START, JobStatus.SUCCEEDED)
        async with (
            program(
                directory / "task-app", *task_app_command(app_port, directory / "state.json")
            ) as task_app,
            program(
                directory / "agent",
                *agent_command(address, app_url),
                TASKLOGS_AGENT_TOKEN=token,
            ) as agent,
            httpx.AsyncClient(base_url=app_url, timeout=30, trust_env=False) as user,
        ):
            yield Deployment(server, postgres, agent, task_app, user, chance), address


def other_languages(directory: Path) -> list[Sequence[str]]:
    """Return the drivers of the client libraries of other languages that can run here."""
    found = []
    for language in drivers.LANGUAGES:
        why = drivers.missing(language)
        if why is not None:
            _log.warning(why)
        elif language != "python":
            (directory / language).mkdir()
            found.append(drivers.command(language, directory / language))
    return found


@asynccontextmanager
async def followed_by(
    commands: Sequence[Sequence[str]], address: str
) -> AsyncIterator[list[Followed]]:
    """Follow the task with each of these drivers."""
    async with AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(drivers.running(command)) for command in commands
        ]
        yield [
            await stack.enter_async_context(following_elsewhere(driver, address, TASK))
            for driver in running
        ]


async def test_the_follow_yields_every_entry_exactly_once(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    began = time.monotonic()
    # Built first: all follows begin before the first epoch does.
    others = await asyncio.to_thread(other_languages, tmp_path)
    async with (
        deployed(postgres_server, tmp_path, chance) as (deployment, address),
        # A server that starts while Postgres is away reports that and exits.
        deployment.server.supervised(),
        TaskLogsClient(address) as client,
        following(client, TASK, deltas=True) as with_deltas,
        following(client, TASK, deltas=False) as whole,
        followed_by(others, address) as elsewhere,
    ):
        all_followed = (with_deltas, whole, *elsewhere)
        for number in range(ROUNDS):
            talking = asyncio.create_task(deployment.talk(), name="a person asks")
            try:
                await deployment.round(with_deltas)
            finally:
                talking.cancel()
                await asyncio.wait({talking})
            mark = f"mark {number}"
            async with asyncio.timeout(AGREE_SECONDS):
                await deployment.ask(mark)
            shown = await deployment.settled()
            restarted = time.monotonic()
            for followed in all_followed:
                with suppress(TimeoutError):  # the assertion below says what is missing
                    await followed.wait_for(partial(_shows, followed, shown), seconds=AGREE_SECONDS)
                assert _conversation(followed) == shown
            stored = await _stored(client)
            _log.info(
                "seed %d round %d: agreed after %.1f s; epochs %d, entries %d, events %d and %d,"
                " reconnects %d and %d",
                *(SEED, number, time.monotonic() - restarted, len(stored)),
                sum(map(len, stored.values())),
                *(with_deltas.events, whole.events, with_deltas.reconnects, whole.reconnects),
            )
            for followed in all_followed:
                for epoch, entries in stored.items():
                    assert followed.of_epoch(epoch) == entries
                _check_answers(followed)
                assert followed.epochs == list(stored)
        assert len(stored) <= 1 + deployment.sudden_ends
        for followed in all_followed:
            assert followed.reconnects >= ROUNDS
    _log.info(
        "seed %d: %d rounds in %.0f s, %d questions, epochs %d, changes %d and %d, breaks %d, %d,"
        " server gave up %d times",
        *(SEED, ROUNDS, time.monotonic() - began, len(deployment.asked), len(stored)),
        *(with_deltas.changes, whole.changes, with_deltas.breaks, whole.breaks),
        deployment.server.restarts,
    )


def _shows(followed: Followed, conversation: list[tuple[int, str]]) -> bool:
    return _conversation(followed) == conversation


def _conversation(followed: Followed) -> list[tuple[int, str]]:
    """Return the current conversation by id, as the task app shows it."""
    entries = followed.of_epoch(max(followed.epochs, default=0)).values()
    return sorted((one.id, one.content) for one in entries)


async def _stored(client: TaskLogsClient) -> dict[int, dict[int, LogEntry]]:
    """Return what a reader reads, by epoch and id."""
    current = await client.get(TASK, source=LogSource.SNAPSHOT)
    return {
        epoch: {
            one.id: one
            for one in await (await client.get(TASK, source=LogSource.SNAPSHOT, epoch=epoch)).all()
        }
        for epoch in range(1, current.epoch + 1)
    }


def _check_answers(followed: Followed) -> None:
    """Check that every content ever yielded is a prefix of what the task app says."""
    for (epoch, entry_id), states in followed.states.items():
        entry = followed.entries[epoch, entry_id]
        if entry.type is TaskLogType.INPUT:
            assert states == [entry.content]
            continue
        question = followed.entries.get((epoch, entry_id - 1))
        says = BANNER if question is None else _ANSWER.format(question.content)
        for state in states:
            assert says.startswith(state)


_ANSWER = "You said: {}. I looked at it from every side, and this is what I found. "
