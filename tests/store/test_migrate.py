"""The schema and its migrations."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from alembic.script import ScriptDirectory

from tasklogs.log.delta import Delta, Piece
from tasklogs.log.entry import EntryType
from tasklogs_server import store as store_package
from tasklogs_server.store import SchemaRefused, Store, UnknownSchema, migrate
from tasklogs_server.store.evictions import EvictionOutcome, LogLimits
from tasklogs_server.store.generations import read_generation
from tasklogs_server.store.log_writes import Outcome
from tasklogs_server.store.migrate import OUR_TABLES, newest_schema
from tests.store.logs import ENTRY_COLUMNS, Connection, Log, entry_record, entry_row, new_task
from tests.support.fixtures.conditions import until
from tests.support.fixtures.postgres import PostgresServer

_UPDATES = "SELECT {} FROM pg_stat_user_tables WHERE relname = 'log_heads'"


@pytest.fixture
def empty_database(shared_postgres: PostgresServer) -> str:
    name = f"empty_{os.urandom(4).hex()}"
    shared_postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return shared_postgres.dsn(name)


async def test_a_new_database_gets_the_schema_and_a_second_migration_changes_nothing(
    empty_database: str,
) -> None:
    await migrate(empty_database)
    await migrate(empty_database)
    connection = await asyncpg.connect(empty_database)
    try:
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == "0011"
        tables = await connection.fetch(
            "SELECT relname FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
    finally:
        await connection.close()
    logs = {"log_heads", "log_entries", "log_tail_parts", "log_events"}
    assert {row["relname"] for row in tables} >= {"tasks", "task_names", "processes"} | logs


def test_the_newest_schema_is_the_last_migration() -> None:
    scripts = ScriptDirectory(str(Path(store_package.__file__).with_name("migrations")))
    assert scripts.get_heads() == [newest_schema()]


async def test_a_start_with_the_newest_schema_loads_no_migrations(database: str) -> None:
    """They need Alembic and SQLAlchemy, which take most of the time of an import of the server."""
    program = (
        "import asyncio, sys\n"
        "from tasklogs_server import app\n"
        "from tasklogs_server.store import migrate\n"
        "asyncio.run(migrate(sys.argv[1]))\n"
        "print(sorted({'alembic', 'sqlalchemy'} & sys.modules.keys()))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, database, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (out, process.returncode) == (b"[]\n", 0)


async def test_a_user_without_the_right_to_create_tables_gets_a_hint(
    empty_database: str, shared_postgres: PostgresServer
) -> None:
    user = f"guest_{os.urandom(4).hex()}"
    shared_postgres.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'guest'")
    parts = urlsplit(empty_database)
    guest = parts._replace(netloc=f"{user}:guest@{parts.netloc.rpartition('@')[2]}").geturl()

    with pytest.raises(SchemaRefused, match="make it the owner"):
        await migrate(guest)


async def test_a_user_who_may_not_write_a_table_gets_a_hint(
    database: str, shared_postgres: PostgresServer
) -> None:
    user, name = f"guest_{os.urandom(4).hex()}", urlsplit(database).path[1:]
    owner = await asyncpg.connect(database)
    try:
        await owner.execute(
            f"CREATE ROLE {user} LOGIN;"
            f" GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user};"
            f" REVOKE INSERT ON log_entries FROM {user}"
        )
        guest = shared_postgres.dsn(name).replace("postgres@", f"{user}@")
        with pytest.raises(SchemaRefused, match=r"table log_entries; make it the owner"):
            await migrate(guest)
        # A user that has all rights on the tables need not own them.
        await owner.execute(f"GRANT INSERT ON log_entries TO {user}")
        await migrate(guest)
        await owner.execute(f"DROP OWNED BY {user}; DROP ROLE {user}")
    finally:
        await owner.close()


async def test_the_tables_whose_rights_are_checked_are_those_of_the_schema(sql: Connection) -> None:
    tables = await sql.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')"
        " AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
    )
    assert {row["relname"] for row in tables} == set(OUR_TABLES)


async def test_data_of_the_first_schema_is_counted_and_begins_to_age_with_the_upgrade(
    empty_database: str,
) -> None:
    await migrate(empty_database, "0001")
    connection = await asyncpg.connect(empty_database)
    task_id, idle = uuid.uuid4(), uuid.uuid4()
    try:
        for one in (task_id, idle):
            await connection.execute(
                "INSERT INTO tasks (task_id, owner, name, display_name, prompt, standalone,"
                " agent_token_hash) VALUES ($1, 'local', $2, '', '', false, '')",
                one,
                str(one),
            )
            await connection.execute("INSERT INTO log_heads (task_id) VALUES ($1)", one)
        await connection.execute(
            "UPDATE log_heads SET epoch = 1, entries = 2, revision = 3, bytes = 6,"
            " tail_id = 1, tail_type = 2, tail_seconds = 2, tail_nanos = 0, tail_revision = 3,"
            " tail_dropped = 0 WHERE task_id = $1",
            task_id,
        )
        await connection.execute("INSERT INTO log_events VALUES ($1, 1, 1)", task_id)
        for row in (entry_row(1, 0, 2, b"one"), entry_row(1, 1, 3, b"two")):
            await connection.execute(
                "INSERT INTO log_entries VALUES ($1, 1, $2, $3, $4, $5, $6)",
                task_id,
                row.ordinal,
                row.id,
                row.revision,
                row.head,
                row.content,
            )
        await migrate(empty_database)
        ages = await connection.fetch(
            "SELECT ordinal, committed_at > clock_timestamp() - interval '1 minute'"
            " FROM log_entries ORDER BY ordinal"
        )
        assert [tuple(row) for row in ages] == [(0, True), (1, True)]
    finally:
        await connection.close()
    store = await Store.open(empty_database, read_connections=2, lease=timedelta(seconds=30))
    try:
        head = (await store.tasks.get(task_id)).head
        assert (head.rows, head.held_bytes, head.held_entries) == (3, 6, 2)
        assert (await store.tasks.get(idle)).head.rows == 0
        log = await Log.open(store, task_id)
        assert await log.write(log.commit([b"three"])) is Outcome.COMMITTED
        limits = LogLimits(rows=2, bytes=1 << 20, min_retention=timedelta(0))
        holding = await store.evictions.evict(task_id, limits)
        assert (holding.rows, holding.evicted.revision) == (3, 2)
        assert await log.contents() == ["two", "three"]
        limits = replace(limits, min_retention=timedelta(days=1))
        assert (await store.evictions.evict(task_id, limits)).outcome is EvictionOutcome.NOTHING
    finally:
        await store.close()


async def test_labels_are_added_without_a_rewrite_of_tasks(empty_database: str) -> None:
    await migrate(empty_database, "0006")
    connection = await asyncpg.connect(empty_database)
    file = "SELECT pg_relation_filenode('tasks')"
    try:
        for number in range(3):
            await connection.execute(
                "INSERT INTO tasks (task_id, owner, name, display_name, prompt, standalone,"
                " agent_token_hash) VALUES (gen_random_uuid(), 'local', $1, '', '', false, '')",
                str(number),
            )
        before = await connection.fetchval(file)
        await migrate(empty_database)
        assert await connection.fetchval(file) == before
        rows = await connection.fetch("SELECT DISTINCT labels, request_id, request_hash FROM tasks")
        assert [tuple(row) for row in rows] == [("{}", None, None)]
    finally:
        await connection.close()


async def test_entries_of_before_0006_get_their_types(empty_database: str) -> None:
    """At each length of the varints before the type."""
    await migrate(empty_database, "0005")
    connection = await asyncpg.connect(empty_database)
    ids = (0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455, 268_435_456, 2**31 - 1)
    sizes = (0, 1, 90, *range(100, 130), *range(16_340, 16_384), 16_385, 300_000, 2_097_152)
    rows = [
        entry_row(1, number, number, bytes(size), id_=id_, type_=EntryType(1 + number % 2))
        for number, (id_, size) in enumerate(
            [*((id_, size) for id_ in ids for size in (0, 100, 1000)), *((5, n) for n in sizes)]
        )
    ]
    task_id = uuid.uuid4()
    try:
        await connection.copy_records_to_table(
            "log_entries",
            records=[entry_record(task_id, row)[:-1] for row in rows],
            columns=ENTRY_COLUMNS[:-1],
        )
        await connection.execute("INSERT INTO log_events VALUES ($1, 1, 1), ($1, 2, 1)", task_id)
        await migrate(empty_database)
        types = await connection.fetch("SELECT type FROM log_entries ORDER BY ordinal")
        assert [row["type"] for row in types] == [row.type for row in rows]
        generated = await connection.fetchval(
            "SELECT attgenerated::text FROM pg_attribute"
            " WHERE attrelid = 'log_entries'::regclass AND attname = 'type'"
        )
        assert generated == ""
        assert await connection.fetchval("SELECT count(type) FROM log_events") == 0
    finally:
        await connection.close()


async def test_servers_that_start_at_once_take_turns(empty_database: str) -> None:
    await asyncio.gather(*(migrate(empty_database) for _ in range(4)))


async def test_parts_of_an_earlier_schema_stay_readable_and_grow_on(empty_database: str) -> None:
    await migrate(empty_database, "0004")
    connection = await asyncpg.connect(empty_database)
    task_id = uuid.uuid4()
    try:
        await connection.execute(
            "INSERT INTO tasks (task_id, owner, name, display_name, prompt, standalone,"
            " agent_token_hash) VALUES ($1, 'local', 'old', '', '', false, '')",
            task_id,
        )
        await connection.execute(
            "INSERT INTO log_heads (task_id, epoch, entries, revision, bytes, tail_id, tail_type,"
            " tail_seconds, tail_nanos, tail_revision, tail_dropped, tail_part_bytes, total_rows)"
            " VALUES ($1, 1, 1, 4, 8, 0, 2, 2, 0, 4, 0, 133, 2)",
            task_id,
        )
        row = entry_row(1, 0, 2, b"one")
        await connection.execute(
            "INSERT INTO log_entries (task_id, epoch, ordinal, id, revision, head, content)"
            " VALUES ($1, 1, 0, 0, 2, $2, $3)",
            task_id,
            row.head,
            row.content,
        )
        await connection.executemany(
            "INSERT INTO log_tail_parts (task_id, revision, keep_bytes, text)"
            " VALUES ($1, $2, $3, $4)",
            [(task_id, 3, 3, b" two"), (task_id, 4, 6, b"ice")],
        )
        await migrate(empty_database)
    finally:
        await connection.close()
    store = await Store.open(empty_database, read_connections=2, lease=timedelta(seconds=30))
    try:
        log = await Log.open(store, task_id)
        assert await log.contents() == ["one twice"]
        pieces = Delta((Piece(4, 5, b" "), Piece(0, 3)))
        assert await log.write(log.commit(change=pieces)) is Outcome.COMMITTED
        assert await log.contents() == ["twice one"]
        assert await store.sessions.tail_content(task_id) == b"twice one"
    finally:
        await store.close()


async def test_logs_of_before_the_upgrade_are_of_the_present_generation_and_are_not_rewritten(
    empty_database: str,
) -> None:
    await migrate(empty_database, "0008")
    connection = await asyncpg.connect(empty_database)
    task_id = uuid.uuid4()
    file = "SELECT pg_relation_filenode('log_heads')"
    try:
        await connection.execute(
            "INSERT INTO log_heads (task_id, revision) VALUES ($1, 5)", task_id
        )
        before = await connection.fetchval(file)
        await migrate(empty_database)
        assert await connection.fetchval(file) == before
        row = await connection.fetchrow("SELECT generation, lost_after FROM log_heads")
        assert row is not None
        assert tuple(row) == (await read_generation(connection), [])
        # A server of before the upgrade does not say with which generation it creates a task.
        await connection.execute("INSERT INTO log_heads (task_id) VALUES ($1)", uuid.uuid4())
        assert await connection.fetchval("SELECT count(*) FROM log_heads WHERE generation = ''")
    finally:
        await connection.close()


async def test_heads_have_no_index_on_what_changes(sql: Connection) -> None:
    indexed = await sql.fetch(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a"
        " ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
        " WHERE i.indrelid = 'log_heads'::regclass"
    )
    assert [row["attname"] for row in indexed] == ["task_id"]


async def test_every_table_of_logs_is_keyed_by_its_task_and_none_refers_to_another(
    sql: Connection,
) -> None:
    first = await sql.fetch(
        "SELECT i.indrelid::regclass::text AS name, a.attname FROM pg_index i JOIN pg_attribute a"
        " ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] WHERE i.indisprimary"
        " AND i.indrelid::regclass::text LIKE 'log%'"
    )
    tables = ("log_heads", "log_entries", "log_tail_parts", "log_events")
    assert {(row["name"], row["attname"]) for row in first} == {
        (name, "task_id") for name in tables
    }
    assert await sql.fetchval("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == 0


async def test_content_is_stored_in_line_if_it_fits(sql: Connection) -> None:
    rows = await sql.fetch(
        "SELECT attname, attstorage::text FROM pg_attribute"
        " WHERE attrelid = 'log_entries'::regclass AND attname IN ('head', 'content')"
    )
    assert {row["attname"]: row["attstorage"] for row in rows} == {"head": "p", "content": "m"}


async def test_commits_update_heads_in_place(store: Store, sql: Connection) -> None:
    log = await Log.open(store, await new_task(store))
    await log.write(log.commit([b"a"], open_epoch=True))
    for number in range(100):
        await log.write(log.commit(grow=b"x", keep=number))
    await store.close()  # Postgres publishes the counters of a connection when it ends

    async def counted() -> bool:
        await sql.execute("SELECT pg_stat_clear_snapshot()")
        return int(await sql.fetchval(_UPDATES.format("n_tup_upd"))) >= 101

    await until(counted)
    assert await sql.fetchval(_UPDATES.format("n_tup_hot_upd")) >= 101


async def test_the_schema_of_a_newer_server_is_refused_with_a_reason(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    finally:
        await connection.close()
    with pytest.raises(UnknownSchema, match="newer version"):
        await migrate(database)
