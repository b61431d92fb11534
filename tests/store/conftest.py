"""A task in the store of the test, and its log."""

from __future__ import annotations

from uuid import UUID

import pytest

from tasklogs_server.store import Store
from tests.store.logs import Connection, Log, new_task


@pytest.fixture
async def task(store: Store) -> UUID:
    return await new_task(store)


@pytest.fixture
async def log(store: Store, task: UUID) -> Log:
    """The task's log, with its fence raised."""
    return await Log.open(store, task)


@pytest.fixture(params=["force_custom_plan", "force_generic_plan"])
async def planned(sql: Connection, request: pytest.FixtureRequest) -> Connection:
    """The connection `sql` in each of the ways in which Postgres plans prepared statements."""
    await sql.execute(f"SET plan_cache_mode = {request.param}")
    await sql.execute("SET jit = off")
    return sql
