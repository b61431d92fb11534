"""A task in the store of the test, and its log."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from tasklogs_server.store import Store
from tests.store.logs import Connection, Log, new_task
from tests.support.fixtures.citus import CITUS_URL
from tests.support.fixtures.postgres import MakeDatabase


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


# The tests of what the statements do also run on Citus. The others are about one Postgres: its
# plans, its dead rows, its restarts, its connections.
_ON_CITUS = {
    "test_evictions",
    "test_log_changes",
    "test_log_reads",
    "test_log_writes",
    "test_purges",
    "test_retirements",
    "test_session_audit",
    "test_sessions",
    "test_task_lists",
    "test_task_states",
    "test_tasks",
    "test_types",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on Citus, too, if there is one."""
    name = metafunc.module.__name__.rpartition(".")[2]
    if CITUS_URL is not None and name in _ON_CITUS and "database" in metafunc.fixturenames:
        metafunc.parametrize("database", ["postgres", "citus"], indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a migrated database that only this test uses."""
    if getattr(request, "param", "postgres") == "citus":
        yield request.getfixturevalue("citus_database")
        return
    make_database: MakeDatabase = request.getfixturevalue("make_database")
    with make_database() as dsn:
        yield dsn
