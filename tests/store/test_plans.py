"""EXPLAIN guards: a read accesses only what it returns, on a log of any length."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasklogs.log.entry import EntryType
from tasklogs_server.domain.description import TaskView
from tasklogs_server.domain.labels import LabelSelector
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.store import Store
from tasklogs_server.store.commit_statements import COMMIT, arguments_of
from tasklogs_server.store.later_pages import READ_LATER, later_page_of
from tasklogs_server.store.list_statements import ListFilter, page_statement
from tasklogs_server.store.log_changes import _CHANGES_OF_TYPES, _START_OF_TYPES
from tasklogs_server.store.log_reads import _READ, _READ_OF_TYPES, PageQuery
from tasklogs_server.store.log_writes import _CONFIRM, _LOCKED_HEAD
from tasklogs_server.store.sessions import _HELD, _OPEN_SERIALS
from tasklogs_server.store.task_lists import LIST_BYTES, NEWEST, SCAN_BYTES, SCAN_ROWS
from tests.store.logs import (
    ENTRY_COLUMNS,
    Connection,
    Log,
    decoded,
    entry_record,
    entry_row,
    new_task,
)

ENTRIES = 100_000


@pytest.fixture
async def big(store: Store, sql: Connection) -> Log:
    """A log of 100,000 entries beside another one, analysed. Every 20,000th entry is an INPUT."""
    other = await Log.open(store, await new_task(store))
    await other.write(other.commit([b"x"] * 100, open_epoch=True))
    log = await Log.open(store, await new_task(store, "big"))
    await log.write(log.commit(open_epoch=True))
    rows = [
        entry_row(1, number, number + 2, b"x" * 80, type_=OUTPUT if number % 20_000 else INPUT)
        for number in range(ENTRIES)
    ]
    await sql.copy_records_to_table(
        "log_entries",
        records=[entry_record(log.task_id, row) for row in rows],
        columns=ENTRY_COLUMNS,
    )
    await sql.execute(
        "UPDATE log_heads SET entries = $2, revision = $2 + 1 WHERE task_id = $1",
        log.task_id,
        ENTRIES,
    )
    await sql.execute("ANALYZE")
    return log


Query = dict[str, Any]
ALL: Query = {"tail": None, "start": None, "end": None, "epoch": None, "name": None}
QUERIES: dict[str, Query] = {
    "the first page": ALL,
    "the last 30": ALL | {"tail": 30},
    "a page in the middle": ALL | {"epoch": 1, "start": 50_000, "end": ENTRIES},
    "the last 30 by name": ALL | {"tail": 30, "name": "big"},
}


INPUT, OUTPUT = EntryType.INPUT, EntryType.OUTPUT
# What to read of some types, and how many entries that is.
TYPED: dict[str, tuple[Query, tuple[int, ...], int]] = {
    "the first page of a rare type": (ALL, (INPUT,), 5),
    "the first page of a frequent type": (ALL, (OUTPUT,), 30),
    "the last 30 of a rare type": (ALL | {"tail": 30}, (INPUT,), 5),
    "the last 3 of a rare type": (ALL | {"tail": 3}, (INPUT,), 3),
    "the last 30 of a frequent type": (ALL | {"tail": 30}, (OUTPUT,), 30),
    "the last 30 of both types": (ALL | {"tail": 30}, (INPUT, OUTPUT), 30),
    "a page in the middle": (ALL | {"epoch": 1, "start": 5, "end": 80_001}, (INPUT,), 4),
    "types that no entry has": (ALL | {"tail": 30}, (99, 100), 0),
}


async def explain(sql: Connection, statement: str, *arguments: object) -> dict[str, Any]:
    """Explain the plan with which a prepared statement is executed in this session.

    EXPLAIN with arguments would show a plan for their values, whatever `plan_cache_mode` says.
    """
    await sql.execute(f"PREPARE explained AS {statement}")
    values = ", ".join(map(literal, arguments))
    text = await sql.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE explained ({values})"
    )
    await sql.execute("DEALLOCATE explained")
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def literal(value: object) -> str:
    """Return a value as SQL."""
    match value:
        case None:
            return "NULL"
        case list() | tuple():
            return "'{" + ", ".join(map(element, value)) + "}'"
        case datetime() if value == datetime.max:
            return "'infinity'"
        case timedelta():
            return f"'{value.total_seconds()} s'"
        case bytes():
            return f"'\\x{value.hex()}'"
        case _:
            return f"'{value}'"


def element(value: object) -> str:
    """Return an element of an array."""
    match value:
        case None:
            return "NULL"
        case bytes():
            return f'"\\\\x{value.hex()}"'
        case _:
            return json.dumps(value)  # a JSON string is also a quoted element


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def explain_read(
    sql: Connection, log: Log, query: Query, rows: int, types: tuple[int, ...] = ()
) -> dict[str, Any]:
    by_name = query["name"] is not None
    return await explain(
        sql,
        (_READ_OF_TYPES if types else _READ)[by_name],
        *log.store._lease_terms,
        None if by_name else log.task_id,
        query["epoch"],
        query["tail"],
        query["start"],
        query["end"],
        rows,
        1_000_000,
        "local" if by_name else None,
        *([query["name"]] if by_name else []),
        *([types] if types else []),
    )


@pytest.mark.usefixtures("planned")
async def test_a_read_scans_no_table_and_reads_few_pages(big: Log, sql: Connection) -> None:
    for name, query in QUERIES.items():
        plan = await explain_read(sql, big, query, rows=30)
        scans = {
            node["Relation Name"]: node["Node Type"]
            for node in nodes(plan)
            if node["Node Type"] == "Seq Scan"
        }
        # If a table is empty or has one page, a scan costs no more than its index.
        assert "log_entries" not in scans, (name, scans)
        buffers = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        assert buffers < 60, (name, buffers)
        rows = [node["Actual Rows"] * node["Actual Loops"] for node in nodes(plan)]
        assert max(rows) <= 31, (name, rows)


@pytest.mark.usefixtures("planned")
async def test_a_later_page_reads_each_of_its_entries_once(big: Log, sql: Connection) -> None:
    """And about an eighth more, where its end is looked for."""
    await sql.execute("UPDATE log_heads SET bytes = entries * 80 WHERE entries = $1", ENTRIES)
    wanted = (*big.store._lease_terms, big.task_id, 1, 50_000, ENTRIES, 1000, 60_000, None)
    page = later_page_of(await sql.fetch(READ_LATER[False], *wanted))
    assert page is not None
    assert page.is_whole(1000, 60_000)
    count = len(page.encoded)
    assert sum(map(len, page.encoded[:-1])) < 60_000 <= sum(map(len, page.encoded))
    plan = await explain(sql, READ_LATER[False], *wanted)
    scans = [node for node in nodes(plan) if node.get("Relation Name") == "log_entries"]
    rows = [node["Actual Rows"] * node["Actual Loops"] for node in scans]
    assert count < sum(rows) < count * 1.6 + 32, (count, rows)
    bare = await explain(
        sql,
        "SELECT head || content FROM log_entries WHERE task_id = $1 AND epoch = 1"
        " AND ordinal >= 50000 AND ordinal < 50000 + $2::int ORDER BY ordinal",
        big.task_id,
        count,
    )
    assert buffers_of(plan) < buffers_of(bare) * 1.6 + 32
    kinds = [(node["Node Type"], node.get("Relation Name")) for node in nodes(plan)]
    assert ("Seq Scan", "log_entries") not in kinds
    assert ("Sort", None) not in kinds


async def read_ids(log: Log, query: Query, types: tuple[int, ...]) -> list[int]:
    wanted = {name: query[name] for name in ("epoch", "tail", "start", "end")}
    page = await log.page(PageQuery(**wanted, rows=30, types=types))
    return [one.id for one in decoded(page)]


@pytest.mark.usefixtures("planned")
async def test_a_read_of_some_types_reads_few_pages_however_rare_these_are(
    big: Log, sql: Connection
) -> None:
    for name, (query, types, count) in TYPED.items():
        plan = await explain_read(sql, big, query, rows=30, types=types)
        scans = [(node["Node Type"], node.get("Relation Name")) for node in nodes(plan)]
        assert ("Seq Scan", "log_entries") not in scans, name
        buffers = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        assert buffers < 100, (name, buffers)
        rows = [node["Actual Rows"] * node["Actual Loops"] for node in nodes(plan)]
        assert max(rows) <= 2 * 31, (name, rows)
        assert len(await read_ids(big, query, types)) == count, name
    for types in ((OUTPUT,), (INPUT, OUTPUT, 99)):
        plan = await explain_read(sql, big, ALL, rows=1000, types=types)
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 1200, types


@pytest.mark.usefixtures("planned")
async def test_a_follow_of_a_rare_type_reads_few_pages_of_a_long_history(
    big: Log, sql: Connection
) -> None:
    lease, task_id = big.store._lease_terms, big.task_id
    for revision in (0, 1, 50_000, ENTRIES - 1):
        plan = await explain(
            sql, _CHANGES_OF_TYPES, *lease, task_id, revision, 1000, 1_000_000, None, (INPUT,)
        )
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200, revision
    for tail in (1, 3, 30):
        plan = await explain(sql, _START_OF_TYPES[False], *lease, task_id, None, tail, (INPUT,))
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 60, tail


async def test_a_read_scans_no_table_of_tasks_either(big: Log, sql: Connection) -> None:
    """Scans are made expensive, so a table that is still scanned has no usable index."""
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    await sql.execute("SET enable_seqscan = off")
    for name, query in QUERIES.items():
        plan = await explain_read(sql, big, query, rows=30)
        kinds = {node["Node Type"] for node in nodes(plan)}
        assert "Seq Scan" not in kinds, (name, kinds)


async def test_the_last_entries_cost_the_same_on_any_length(big: Log, sql: Connection) -> None:
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    small = await Log.open(big.store, await new_task(big.store))
    await small.write(small.commit([b"x" * 80] * 1000, open_epoch=True))
    costs = []
    for log in (small, big):
        plan = await explain_read(sql, log, ALL | {"tail": 30}, rows=30)
        costs.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    assert costs[1] <= costs[0] + 8, costs


async def test_a_commit_touches_its_own_rows(big: Log, sql: Connection) -> None:
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    log = await Log.open(big.store, await new_task(big.store))
    await log.write(log.commit([b"a"], open_epoch=True))
    await log.write(log.commit(grow=b"b", keep=1))
    await sql.execute("SET enable_seqscan = off")
    async with sql.transaction():
        plan = await explain(sql, COMMIT.sql, *arguments_of(log.commit([b"c"])))
    kinds = {node["Node Type"] for node in nodes(plan)}
    assert "Seq Scan" not in kinds
    assert plan["Shared Hit Blocks"] < 150


async def test_marking_losses_reads_only_open_sessions(store: Store, sql: Connection) -> None:
    process_id = store.sessions._lease_terms.process_id
    await sql.execute(
        "INSERT INTO tasks (task_id, owner, name, display_name, prompt, standalone,"
        " agent_token_hash, session_process, session_serial, session_lost_at)"
        " SELECT gen_random_uuid(), 'local', i::text, '', '', false, '', $1, i,"
        " CASE WHEN i % 100 = 0 THEN NULL ELSE clock_timestamp() END"
        " FROM generate_series(1, 20000) i",
        process_id,
    )
    await sql.execute("ANALYZE tasks")
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    for statement, arguments in (
        (_OPEN_SERIALS, (20_000, [100, 200])),
        (_HELD, ([100, 200, 300],)),
    ):
        async with sql.transaction():
            plan = await explain(sql, statement, process_id, *arguments)
        assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}
        read = [node["Actual Rows"] * node["Actual Loops"] for node in nodes(plan)]
        assert max(read) <= 200


async def many_tasks(sql: Connection, owner: str, count: int) -> None:
    """Create tasks of an owner; the oldest one alone has the label `wanted`."""
    await sql.execute(
        "INSERT INTO tasks (task_id, owner, name, display_name, prompt, standalone,"
        " agent_token_hash, created_at, labels)"
        " SELECT gen_random_uuid(), $1, i::text, '', convert_to(repeat('do it ', 100), 'UTF8'),"
        " false, '', now() - interval '1 s' * ($2 - i),"
        " jsonb_build_object('env', CASE WHEN i % 2 = 0 THEN 'prod' ELSE 'dev' END,"
        "                    CASE WHEN i = 1 THEN 'wanted' ELSE 'number' END, i::text)"
        " FROM generate_series(1, $2::int) i",
        owner,
        count,
    )
    await sql.execute("INSERT INTO log_heads (task_id) SELECT task_id FROM tasks")
    await sql.execute("ANALYZE")


Labels = tuple[Sequence[str], Sequence[str]]
"""Labels with values, as JSON, and keys."""


def buffers_of(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def explain_list(
    sql: Connection, store: Store, by: ListFilter, view: TaskView, labels: Labels = ((), ())
) -> dict[str, Any]:
    """Explain the first page of 100 tasks of a list."""
    statement = page_statement(view, by)
    return await explain(sql, statement.sql, *statement.some_of(list_values(store, labels)))


def list_values(store: Store, labels: Labels) -> dict[str, object]:
    values: dict[str, object] = dict(store.tasks._lease_terms._asdict())
    values |= {"created_at": NEWEST[0], "task_id": NEWEST[1], "limit": 101, "bytes": LIST_BYTES}
    values |= {"owner": "local", "scan_rows": SCAN_ROWS, "scan_bytes": SCAN_BYTES}
    return values | {"pairs": labels[0], "keys": labels[1]}


async def test_statements_that_skip_a_held_head_read_only_the_head_of_their_task(
    store: Store, sql: Connection
) -> None:
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    await many_tasks(sql, "local", 20_000)
    task_id = await sql.fetchval("SELECT task_id FROM tasks LIMIT 1")
    for statement, arguments in (
        (_LOCKED_HEAD, (task_id,)),
        (_CONFIRM, (task_id, 0, datetime.now(UTC))),
    ):
        async with sql.transaction():
            plan = await explain(sql, statement, *arguments)
        assert not [one for one in nodes(plan) if one["Node Type"] == "Seq Scan"], statement
        assert max(node["Actual Rows"] * node["Actual Loops"] for node in nodes(plan)) <= 1
        # A look-up, a lock, a look-up again and an update.
        assert buffers_of(plan) <= 24


async def test_a_list_reads_only_its_page_of_many_tasks(store: Store, sql: Connection) -> None:
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    await many_tasks(sql, "local", 50_000)
    prod = (('{"env": "prod"}',), ())
    for status in (None, TaskStatus.PENDING):
        for view in TaskView:
            for of_owner in (False, True):
                plan = await explain_list(sql, store, ListFilter(of_owner, False, status), view)
                assert buffers_of(plan) < 101 * 9
                by = ListFilter(of_owner, True, status)
                plan = await explain_list(sql, store, by, view, prod)
                assert buffers_of(plan) < 101 * 9


async def test_a_label_is_searched_in_the_order_of_age_and_up_to_a_bound(
    store: Store, sql: Connection
) -> None:
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    await many_tasks(sql, "local", SCAN_ROWS + 50)
    by = ListFilter(of_owner=True, labelled=True)
    plan = await explain_list(sql, store, by, TaskView.BASIC, (('{"wanted": "1"}',), ()))
    kinds = {node["Node Type"] for node in nodes(plan) if node["Actual Rows"] > 1}
    assert kinds == {"Limit", "Index Scan", "WindowAgg", "Subquery Scan"}

    wanted = (LabelSelector("wanted", "1"),)
    page, position = await store.tasks.list_(owner="local", after=NEWEST, limit=2, labels=wanted)
    assert not list(page)
    assert position is not None
    page, position = await store.tasks.list_(owner="local", after=position, limit=2, labels=wanted)
    assert [task.name for task in page] == ["1"]
    assert position is None


# The facts of a task with each status but PENDING, which the other tasks have.
FACTS = {
    TaskStatus.INITIALIZING: ("START", "SUCCEEDED", "CREATED", None),
    TaskStatus.ACTIVE: ("START", "SUCCEEDED", "READY", "HEALTHY"),
    TaskStatus.PAUSED: ("STOP", "SUCCEEDED", "OFF", "HEALTHY"),
    TaskStatus.ERROR: ("START", "RUNNING", "READY", "UNHEALTHY"),
    TaskStatus.UNKNOWN: ("START", "SUCCEEDED", "OFF", "HEALTHY"),
}

FACT_VALUES = "transition = $1, job_status = $2, lifecycle = $3, health = $4"


async def test_the_oldest_of_many_tasks_is_found_by_its_status_in_one_call(
    store: Store, sql: Connection
) -> None:
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    await many_tasks(sql, "local", 200_001)
    plain = await explain_list(sql, store, ListFilter(False, False), TaskView.BASIC)
    for status, facts in FACTS.items():
        await sql.execute(f"UPDATE tasks SET {FACT_VALUES} WHERE name = '1'", *facts)
        for owner in (None, "local"):
            by = ListFilter(owner is not None, False, status)
            plan = await explain_list(sql, store, by, TaskView.BASIC)
            assert buffers_of(plan) < buffers_of(plain) / 4, (status, owner)
            for labels in ((), (LabelSelector("wanted", "1"),)):
                page, position = await store.tasks.list_(
                    owner=owner, status=status, after=NEWEST, limit=1000, labels=labels
                )
                assert [task.name for task in page] == ["1"], (status, owner)
                assert position is None


async def test_a_standalone_task_whose_lease_runs_is_found_among_many_whose_lease_is_over(
    store: Store, sql: Connection
) -> None:
    """And the reverse. Of these, one page examines a bounded number."""
    await sql.execute("SET plan_cache_mode = force_generic_plan")
    await many_tasks(sql, "local", 50_000)
    long_ago = await sql.fetchval("SELECT now() - interval '1 day'")
    store.tasks._lease_terms = store.tasks._lease_terms._replace(up_since=long_ago)
    await sql.execute(
        f"UPDATE tasks SET {FACT_VALUES}, standalone = true, session_process = $5,"
        " session_lost_at = CASE name WHEN '1' THEN NULL WHEN '2' THEN now() ELSE $6 END",
        *FACTS[TaskStatus.ACTIVE],
        store.tasks._lease_terms.process_id,
        long_ago,
    )
    await sql.execute("VACUUM ANALYZE tasks")
    for of_owner in (False, True):
        plan = await explain_list(
            sql, store, ListFilter(of_owner, False, TaskStatus.ACTIVE), TaskView.BASIC
        )
        assert buffers_of(plan) < 60
        plan = await explain_list(
            sql, store, ListFilter(of_owner, False, TaskStatus.UNKNOWN), TaskView.BASIC
        )
        assert buffers_of(plan) < 101 * 9
    page, position = await store.tasks.list_(
        owner=None, status=TaskStatus.ACTIVE, after=NEWEST, limit=9
    )
    assert ([task.name for task in page], position) == (["2", "1"], None)
