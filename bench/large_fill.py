"""Fills a database with many tasks and one large log, in the schema of the first release."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from bench.fill import fill

if TYPE_CHECKING:
    from bench.large import Size

OWNER = "bench"
LARGE = UUID(int=1)
"""The task with the large log. It is in the middle of all lists."""

# Filled in this schema, then migrated by the server under test: so one fill serves servers with and
# without newer migrations, and the migrations have this much to do.
_SCHEMA = "0008"
_MIGRATE = """
import asyncio, sys
from tasklogs_server.store.migrate import migrate
asyncio.run(migrate(sys.argv[1], sys.argv[2]))
"""
_CONTENT_BYTES = 100
_SMALL_ENTRIES = 10

# Task 0 is the oldest and the only one that is paused. $1: the number of tasks besides the large
# one, $2: the id of the large one.
_TASKS = """
INSERT INTO tasks (task_id, owner, name, display_name, prompt, standalone, created_at, changed_at,
                   agent_token_hash, build_number, transition, job_status, lifecycle, health,
                   start_build, labels)
SELECT CASE WHEN n = -1 THEN $2::uuid ELSE gen_random_uuid() END, '{owner}', 't' || n, 'Task ' || n,
       convert_to(repeat('Do it. ', 20), 'UTF8'), false, moment, moment,
       sha256(convert_to(n::text, 'UTF8')), 1, CASE WHEN n = 0 THEN 'STOP' ELSE 'START' END,
       'SUCCEEDED', 'READY', 'HEALTHY', 1,
       CASE WHEN n = 0 THEN '{{"oldest": "yes"}}'::jsonb ELSE '{{"team": "a"}}'::jsonb END
  FROM generate_series(-1, $1::integer - 1) n,
       LATERAL (SELECT now() - interval '1 second'
                       * (2 * $1::integer - CASE WHEN n = -1 THEN $1::integer / 2 ELSE n END)
                       AS moment) m
"""
_BESIDE = (
    "INSERT INTO task_names (owner, name, task_id) SELECT owner, name, task_id FROM tasks",
    "INSERT INTO log_heads (task_id) SELECT task_id FROM tasks",
)
# The opening of the epoch has the revision before that of the first entry. Searches begin there.
_AFTER = (
    "INSERT INTO log_events (task_id, revision, epoch)"
    " SELECT task_id, 1, 1 FROM log_heads WHERE entries > 0",
    "UPDATE log_heads SET total_rows = entries + 1 WHERE entries > 0",
)

_SMALL = "SELECT task_id FROM tasks WHERE name = ANY ($1::text[])"


async def fill_large(dsn: str, size: Size) -> None:
    """Make the schema, the tasks, their logs, and the statistics of Postgres."""
    migration = await asyncio.create_subprocess_exec(sys.executable, "-c", _MIGRATE, dsn, _SCHEMA)
    if await migration.wait() != 0:
        raise RuntimeError("the schema could not be made")
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_TASKS.format(owner=OWNER), size.tasks, LARGE)
        for statement in _BESIDE:
            await connection.execute(statement)
        names = [f"t{number}" for number in range(1, size.deletions + 10)]
        small = [row["task_id"] for row in await connection.fetch(_SMALL, names)]
    finally:
        await connection.close()
    await fill(dsn, small, entries=_SMALL_ENTRIES, content_bytes=_CONTENT_BYTES)
    await fill(dsn, [LARGE], entries=size.entries, content_bytes=_CONTENT_BYTES)
    connection = await asyncpg.connect(dsn)
    try:
        for statement in _AFTER:
            await connection.execute(statement)
        for table in ("tasks", "task_names", "log_heads", "log_events"):
            await connection.execute(f"VACUUM ANALYZE {table}")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
