"""The statements fit a Postgres that is sharded by Citus.

Without Citus, their text is compared with what Citus is known to refuse. On a real one, where
TASKLOGS_TEST_CITUS_URL names it, all of them are executed, and most tests of this package run on
it, too.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tasklogs_server.domain.description import TaskView
from tasklogs_server.store.connect import Connection as StoreConnection
from tasklogs_server.store.connect import connect
from tasklogs_server.store.sharding import SHARDED_SETTINGS, is_sharded
from tests.store.sharded_rules import RULES, all_refused, queries, refused
from tests.store.statements import statements
from tests.support.fixtures.citus import needs_citus

# On Citus other statements are used instead of these.
_ONLY_UNSHARDED = {
    "later_pages.READ_LATER[True]": "task_names._RESOLVE",
    "commit_statements.COMMIT": "commit_statements._COMMIT_SHARDED",
    "log_changes._START[True]": "task_names._RESOLVE",
    "log_changes._START_OF_TYPES[True]": "task_names._RESOLVE",
    "log_reads.READ_LATER[True]": "task_names._RESOLVE",
    "log_reads._READ[True]": "task_names._RESOLVE",
    "log_reads._READ_OF_TYPES[True]": "task_names._RESOLVE",
    "session_audit._AUDIT": "session_audit._AUDIT_SHARDED",
    "task_states._STATES": "task_states._STATES_SHARDED",
}
# They ask a Postgres about itself.
_NO_TABLES = {"migrate._FORBIDDEN", "blockers._BLOCKERS"}


def used_where_sharded() -> dict[str, str]:
    return {
        name: statement
        for name, statement in statements().items()
        if name not in _ONLY_UNSHARDED
        and name not in _NO_TABLES
        and (not name.startswith("page_statement") or "sharded" in name)
    }


def test_no_statement_has_what_citus_refuses() -> None:
    assert list(all_refused(used_where_sharded())) == []


def test_each_statement_that_is_not_used_on_citus_has_another_one_instead() -> None:
    everything = statements()
    assert set(_ONLY_UNSHARDED) <= set(everything)
    assert set(_ONLY_UNSHARDED.values()) <= set(everything)
    # A list of one owner's tasks looks like a statement about one row: see `_OF_ONE_TASK`.
    lists = {name for name in everything if name.startswith("page_statement")}
    breaking = set(dict(all_refused(everything)))
    assert breaking - lists == set(_ONLY_UNSHARDED)
    assert {f"page_statement[{view.name}]" for view in TaskView} <= dict(
        all_refused(everything)
    ).keys()


_PLANTED = {
    "UPDATE tasks SET changed_at = clock_timestamp() WHERE task_id = $1": "a volatile function",
    "DELETE FROM log_events WHERE task_id = $1 AND committed_at < (SELECT clock_timestamp())": (
        "a volatile function"
    ),
    "WITH gone AS (DELETE FROM log_entries WHERE task_id = $1) SELECT 1": "a CTE that changes",
    "SELECT EXISTS (SELECT FROM log_heads WHERE task_id = $1)": "SELECT without a column",
    "SELECT h.fence FROM tasks t JOIN log_heads h USING (task_id) WHERE task_id = $1 FOR UPDATE": (
        "FOR UPDATE over a join"
    ),
    "WITH a AS (SELECT 1 FROM tasks WHERE task_id = ANY ($1) FOR UPDATE SKIP LOCKED) SELECT 1": (
        "FOR UPDATE of the rows of many tasks"
    ),
    "DELETE FROM log_entries WHERE ctid = ANY (ARRAY(SELECT row_id FROM oldest))": "rows by ctid",
    "SELECT * FROM tasks WHERE task_id = (SELECT task_id FROM task_names WHERE owner = $1)": (
        "a name that is looked up"
    ),
    "SELECT * FROM page CROSS JOIN LATERAL (SELECT 1 FROM tasks WHERE 1 = (2) OFFSET 0) task": (
        "LATERAL with OFFSET 0"
    ),
}


@pytest.mark.parametrize("planted", _PLANTED)
def test_a_planted_statement_breaks_its_rule_only(planted: str) -> None:
    [rule] = refused(planted)
    assert rule.startswith(_PLANTED[planted])


def test_each_rule_has_a_planted_statement() -> None:
    broken = {rule for planted in _PLANTED for rule in refused(planted)}
    assert broken == set(RULES)


def test_a_statement_is_read_as_a_tree_of_queries() -> None:
    found = queries("WITH a AS (SELECT f(1, (SELECT 2))) UPDATE t SET x = 1 WHERE y IN (3, (4))")
    assert [(one.own, one.is_cte, one.changes) for one in found] == [
        ("SELECT 2", False, ""),
        ("SELECT f(1, (...))", True, ""),
        ("WITH a AS (...) UPDATE t SET x = 1 WHERE y IN (3, (4))", False, "UPDATE"),
    ]
    assert refused("-- EXISTS (SELECT FROM x)\nSELECT 'EXISTS (SELECT FROM x)'") == []


async def test_a_postgres_without_citus_is_not_sharded(database: str) -> None:
    connection = await asyncpg.connect(database, connection_class=StoreConnection)
    assert not await is_sharded(connection)
    await connection.close()


@pytest.fixture
async def citus(citus_database: str) -> AsyncIterator[StoreConnection]:
    connection = await connect(citus_database, SHARDED_SETTINGS)
    yield connection
    await connection.close()


# More than one, so that they are on several servers.
_TASKS = [uuid.UUID(int=number) for number in range(5)]
_VALUES = {
    "uuid": _TASKS[0],
    "text": "x",
    "varchar": "x",
    "name": "x",
    "int2": 1,
    "int4": 1,
    "int8": 1,
    "bytea": b"x",
    "bool": False,
    "timestamptz": datetime(2026, 1, 2, tzinfo=UTC),
    "interval": timedelta(seconds=1),
    "jsonb": "{}",
}


def value_of(parameter: asyncpg.Type) -> object:
    name = parameter.name.removesuffix("[]")
    if name == parameter.name:
        return _VALUES[name]
    return _TASKS if name == "uuid" else [_VALUES[name]] * len(_TASKS)


@needs_citus
async def test_citus_executes_every_statement(citus: StoreConnection) -> None:
    assert await is_sharded(citus)
    answers = {}
    for name, statement in used_where_sharded().items():
        transaction = citus.transaction()
        await transaction.start()
        try:
            prepared = await citus.prepare(statement)
            arguments = [value_of(one) for one in prepared.get_parameters()]
            # Postgres may plan the first five executions otherwise than the next ones.
            for _ in range(1 if "INSERT INTO" in statement else 7):
                await prepared.fetch(*arguments)
        except asyncpg.PostgresError as error:
            answers[name] = str(error)
        finally:
            await transaction.rollback()
    assert answers == {}


@needs_citus
async def test_citus_needs_the_ids_of_tasks_to_plan(citus: StoreConnection) -> None:
    """So the server leaves `plan_cache_mode` as it is by default."""
    await citus.execute("SET plan_cache_mode = force_generic_plan")
    refusals = 0
    for statement in used_where_sharded().values():
        async with citus.transaction():
            prepared = await citus.prepare(statement)
            arguments = [value_of(one) for one in prepared.get_parameters()]
            try:
                async with citus.transaction():
                    await prepared.fetch(*arguments)
            except asyncpg.FeatureNotSupportedError:
                refusals += 1
            except asyncpg.PostgresError:
                pass
    assert refusals > 20
