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


# These tests also run on Citus, where there is one. For the other statements, test_sharding.py only
# shows that Citus executes them.
_ON_CITUS = {
    "test_log_writes",
    "test_purges",
    "test_session_audit",
    "test_sessions",
    "test_task_states",
    "test_tasks",
}
# They explain plans, look for locks, move times back or make triggers, which does not work there.
# Or they need several creations within the two seconds that a caller waits.
_NOT_ON_CITUS = {
    "test_a_check_reads_only_the_rows_of_its_tasks",
    "test_a_chunk_scans_no_table",
    "test_a_loss_that_was_refused_is_tried_again_less_and_less_often",
    "test_a_report_waits_for_a_rotation_and_then_sees_its_fence",
    "test_a_server_that_joins_another_shares_its_uptime",
    "test_an_update_that_fails_changes_nothing_and_updates_take_turns",
    "test_it_looks_up_each_task_by_its_key",
    "test_another_process_relies_on_the_heartbeat",
    "test_of_equal_creations_at_once_one_creates_on_two_servers",
    "test_of_two_tasks_created_at_once_with_one_name_one_succeeds",
    "test_finding_deleted_tasks_reads_a_page_of_them_only",
    "test_the_last_chunk_costs_what_the_first_did_without_a_vacuum",
    "test_the_lease_runs_from_the_loss",
    "test_the_process_that_holds_a_session_needs_no_heartbeat",
    "test_time_without_any_server_does_not_count",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on Citus, too, if there is one."""
    name = metafunc.module.__name__.rpartition(".")[2]
    fits = name in _ON_CITUS and metafunc.function.__name__ not in _NOT_ON_CITUS
    if CITUS_URL is not None and fits and "database" in metafunc.fixturenames:
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
