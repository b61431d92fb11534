"""One run: calls, sessions and follows in ten equal tenths, and the footprint after each."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tests.support.fixtures.authenticated import ADMIN
from tests.support.fixtures.ports import lasting_port
from tests.system.endurance.callers import OK, Callers, Who
from tests.system.endurance.calls import (
    ROTATED,
    TASK,
    UPLOADED,
    Case,
    Ids,
    Made,
    answered,
    follow,
    refused,
)
from tests.system.endurance.footprint import Footprint, Measured
from tests.system.endurance.sessions import Workspace
from tests.system.hostile.served import Mode, Served, make_active, served

TENTHS = 10
_CHANNELS = 8
_WORKERS = 16
_UNLIMITED = "1000000"

Work: TypeAlias = "Callable[[Callers, Workspace], Awaitable[None]]"
Tell: TypeAlias = "Callable[[str], None]"


@dataclass(frozen=True)
class Amounts:
    """How much a whole run does."""

    answered: int = 100_000
    refused: int = 100_000
    sessions: int = 20_000
    follows: int = 20_000

    def scaled(self, scale: float) -> Amounts:
        counts = (self.answered, self.refused, self.sessions, self.follows)
        return Amounts(*(max(TENTHS, round(count * scale)) for count in counts))


@dataclass
class Record:
    """What a run did and saw."""

    footprints: list[Footprint] = field(default_factory=list)
    """After each tenth."""
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many calls of each RPC, session and follow ended with which status."""
    unexpected: Counter[str] = field(default_factory=Counter)
    """Calls that did not end as they must, in words."""
    said: list[str] = field(default_factory=list)
    """The lines of the server's log."""

    def note(self, name: str, status: str, wanted: str) -> None:
        self.ended[name, status] += 1
        if status != wanted:
            self.unexpected[f"{name} ended with {status} instead of {wanted}"] += 1


async def endure(amounts: Amounts, directory: Path, dsn: str, tell: Tell) -> Record:
    """Run once against a server of its own on the database."""
    record = Record()
    metrics_port = lasting_port()
    limits = {
        "calls_per_second": _UNLIMITED,
        "calls_at_once": _UNLIMITED,
        "agent_connects_per_second": _UNLIMITED,
        "agent_connects_at_once": _UNLIMITED,
        "channelz": "true",
        "metrics_listen": str(metrics_port),
    }
    async with (
        served(directory, Mode.TLS, database_url=dsn, **limits) as server,
        _callers(server) as callers,
    ):
        measured = Measured(server.process, metrics_port, dsn)
        made = Made()
        workspaces = [Workspace(number) for number in range(_WORKERS)]
        calls = itertools.cycle(answered(made, await Ids.of(callers)))
        refusals = itertools.cycle(refused(made))
        for number in range(TENTHS):
            began = time.monotonic()
            work = _shuffled(_share_of(amounts, number, calls, refusals, record), number)
            async with asyncio.TaskGroup() as group:
                for workspace in workspaces:
                    group.create_task(_do(work, callers, workspace))
            record.footprints.append(now := await measured.footprint())
            tell(
                f"tenth {number + 1}: {now.rss / 1e6:.1f} MB, {now.files} files,"
                f" {now.threads} threads, {now.backends} connections to Postgres,"
                f" {time.monotonic() - began:.0f} s"
            )
        record.said = server.program.said.splitlines()
    return record


@asynccontextmanager
async def _callers(server: Served) -> AsyncIterator[Callers]:
    """Open the connections, and create the tasks that the calls are about."""
    async with AsyncExitStack() as stack:
        users = [await stack.enter_async_context(server.user("owner")) for _ in range(_CHANNELS)]
        owner = users[0]
        await make_active(owner, (await owner.create_task("task")).task.id)
        uploaded = await owner.create_task(UPLOADED.removeprefix("owner/"))
        await owner.create_task(ROTATED.removeprefix("owner/"))
        tokens = {
            Who.OWNER: server.token("owner"),
            Who.OTHER: server.token("other"),
            Who.ADMIN: server.token("admin", scope=ADMIN),
            Who.AGENT: uploaded.agent_token,
        }
        yield Callers(
            [user.channel for user in users],
            {who: token for who, token in tokens.items() if token is not None},
        )


def _share_of(
    amounts: Amounts,
    number: int,
    calls: Iterator[Case],
    refusals: Iterator[Case],
    record: Record,
) -> list[Work]:
    """Return the work of one tenth."""

    def share(count: int) -> range:
        return range(count * number // TENTHS, count * (number + 1) // TENTHS)

    work = [_call(next(calls), record) for _ in share(amounts.answered)]
    work += [_call(next(refusals), record) for _ in share(amounts.refused)]
    work += [_session(record) for _ in share(amounts.sessions)]
    work += [_follow(record) for _ in share(amounts.follows)]
    return work


def _shuffled(work: list[Work], seed: int) -> Iterator[Work]:
    random.Random(seed).shuffle(work)
    return iter(work)


async def _do(work: Iterator[Work], callers: Callers, workspace: Workspace) -> None:
    for one in work:
        await one(callers, workspace)


def _call(case: Case, record: Record) -> Work:
    async def work(callers: Callers, _: Workspace) -> None:
        record.note(case.path, await case.make(callers), case.status)

    return work


def _session(record: Record) -> Work:
    async def work(callers: Callers, workspace: Workspace) -> None:
        record.note("a session", await workspace.session(callers), OK)

    return work


def _follow(record: Record) -> Work:
    async def work(callers: Callers, workspace: Workspace) -> None:
        task = workspace.task if workspace.is_there else TASK
        record.note("a follow", await follow(callers, task, Who.OWNER), OK)

    return work
