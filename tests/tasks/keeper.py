"""A task directory and its retention over a real store, and tasks for them to delete."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from tasklogs_server.bus.local import LocalBus
from tasklogs_server.bus.notes import Note
from tasklogs_server.domain.status import (
    AgentLifecycle,
    AppHealth,
    BuildTransition,
    Facts,
    JobStatus,
)
from tasklogs_server.ingest.log_limits import LogLimiter
from tasklogs_server.store import Store
from tasklogs_server.store.evictions import LogLimits
from tasklogs_server.store.purges import Purges
from tasklogs_server.tasks.directory import TaskDirectory
from tasklogs_server.tasks.pace import Pace
from tasklogs_server.tasks.purge import Purge
from tasklogs_server.tasks.retention import Retention
from tests.ingest.desk import Desk
from tests.store.logs import Connection, Log, new_task

DAY, WEEK = timedelta(days=1), timedelta(days=7)
LIMITS = LogLimits(rows=10, bytes=1 << 30, min_retention=DAY)
PAUSED = Facts(1, BuildTransition.STOP, JobStatus.SUCCEEDED, None, None)
DELETED = Facts(1, BuildTransition.DELETE, JobStatus.SUCCEEDED, None, None)
NOT_PAUSED = {
    "no build": Facts(None, None, None, None, None),
    "active": Facts(
        1, BuildTransition.START, JobStatus.SUCCEEDED, AgentLifecycle.READY, AppHealth.HEALTHY
    ),
    "pending": Facts(1, BuildTransition.START, JobStatus.PENDING, None, None),
    "initializing": Facts(1, BuildTransition.START, JobStatus.RUNNING, None, None),
    "error": Facts(1, BuildTransition.STOP, JobStatus.FAILED, None, None),
    "still stopping": Facts(1, BuildTransition.STOP, JobStatus.RUNNING, None, None),
    "off": Facts(1, BuildTransition.START, JobStatus.SUCCEEDED, AgentLifecycle.OFF, None),
}


class Keeper:
    """Both over the desk's store. A test calls each piece of work itself."""

    def __init__(
        self, desk: Desk, *, retention: timedelta | None = WEEK, purges: Purges | None = None
    ) -> None:
        self.now = 0.0
        self.bus = LocalBus()
        self.notes: list[Note] = []
        self.bus.listen(self.notes.append)
        store = desk.store
        pace = Pace(lambda: 0)
        self.purge = Purge(
            purges or store.purges, desk.sessions, self.bus, pace=pace, clock=lambda: self.now
        )
        self.directory = TaskDirectory(store.tasks, desk.sessions, self.bus, purge=self.purge)
        self.work = Retention(
            evictions=store.evictions,
            retirements=store.retirements,
            purge=self.purge,
            log_limiter=LogLimiter(store.evictions, LIMITS),
            limits=LIMITS,
            period=retention,
            pace=pace,
            clock=lambda: self.now,
        )


async def age(sql: Connection, task: UUID, by: timedelta) -> None:
    """Move every stored time of a task back by `by`."""
    for statement in (
        "UPDATE log_entries SET committed_at = committed_at - $2::interval WHERE task_id = $1",
        "UPDATE log_events SET committed_at = committed_at - $2::interval WHERE task_id = $1",
        "UPDATE tasks SET changed_at = changed_at - $2::interval,"
        " session_lost_at = session_lost_at - $2::interval WHERE task_id = $1",
    ):
        await sql.execute(statement, task, by)


async def paused(store: Store, facts: Facts = PAUSED, *, contents: int = 0) -> UUID:
    """Create a task with these facts, and with a log of `contents` entries."""
    task = await new_task(store)
    log = await Log.open(store, task)
    if contents:
        await log.write(log.commit([b"x"] * contents, open_epoch=True))
    await log.lose_session()
    await store.tasks.change_facts(task, lambda _: facts)
    return task


async def is_there(sql: Connection, task: UUID) -> bool:
    found: bool = await sql.fetchval(
        "SELECT EXISTS (SELECT FROM tasks WHERE task_id = $1 AND deleted_at IS NULL)", task
    )
    return found


async def refuse(sql: Connection, event: str, table: str, tasks: list[UUID], code: str) -> None:
    """Let Postgres refuse an `event` on rows of these tasks, with the SQLSTATE `code`."""
    row = "OLD" if event == "DELETE" else "NEW"
    named = ", ".join(f"'{task}'" for task in tasks)
    await sql.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'a secret' USING ERRCODE = '{code}'; END $$;
        CREATE TRIGGER refuse BEFORE {event} ON {table} FOR EACH ROW
        WHEN ({row}.task_id IN ({named})) EXECUTE FUNCTION refuse()""")


@asynccontextmanager
async def locked(database: str, table: str, task: UUID) -> AsyncIterator[None]:
    """Hold a lock on one row of the task, in another transaction, as long as the block lasts."""
    connection = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            rows = await connection.fetch(
                f"SELECT FROM {table} WHERE task_id = $1 LIMIT 1 FOR UPDATE", task
            )
            assert len(rows) == 1
            yield
    finally:
        await connection.close()


# A check fails; a row is corrupt; a block cannot be read.
CODES = pytest.mark.parametrize("code", ["23514", "XX001", "58030"])
