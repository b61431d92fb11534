"""A store on a database of the test's own, and a task in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from tasklogs_server.store import Store
from tests.store.logs import Connection, Log, new_task


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    opened = await Store.open(database, read_connections=4, lease=timedelta(seconds=30))
    yield opened
    await opened.close()


@pytest.fixture
async def sql(database: str) -> AsyncIterator[Connection]:
    """A connection that is not the store's, to read and change rows."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def task(store: Store) -> UUID:
    return await new_task(store)


@pytest.fixture
async def log(store: Store, task: UUID) -> Log:
    """The task's log, with its fence raised."""
    return await Log.open(store, task)
