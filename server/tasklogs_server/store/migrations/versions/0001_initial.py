"""Tasks, names, heads, entries, tail parts, log events and server processes."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = """
-- One row per task: who owns it, the facts of its latest build, and the session that reports for
-- it. Written on reports and connects only. The prompt is bytea because text refuses NUL.
CREATE TABLE tasks (
    task_id          uuid        PRIMARY KEY,
    owner            text        NOT NULL,
    name             text        NOT NULL,
    display_name     text        NOT NULL,
    prompt           bytea       NOT NULL,
    standalone       boolean     NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at       timestamptz,
    agent_token_hash bytea       NOT NULL,
    build_number     integer,
    transition       text,
    job_status       text,
    lifecycle        text,
    health           text,
    -- The latest START build. The build numbers of agents are compared with it.
    start_build      integer,
    session_process  uuid,
    session_fence    bigint      NOT NULL DEFAULT 0,
    session_lost_at  timestamptz
);
CREATE INDEX tasks_by_age ON tasks (created_at, task_id);
CREATE INDEX tasks_by_owner ON tasks (owner, created_at, task_id);
CREATE INDEX tasks_deleted ON tasks (deleted_at) WHERE deleted_at IS NOT NULL;

-- Keyed by owner, not by task: a name is unique per owner and free again after deletion.
CREATE TABLE task_names (
    owner   text NOT NULL,
    name    text NOT NULL,
    task_id uuid NOT NULL,
    PRIMARY KEY (owner, name)
);

-- Each commit updates a row. Rows are narrow and no index covers what changes, so updates stay HOT.
CREATE TABLE log_heads (
    task_id         uuid        PRIMARY KEY,
    fence           bigint      NOT NULL DEFAULT 0,
    epoch           integer     NOT NULL DEFAULT 0,
    entries         integer     NOT NULL DEFAULT 0,
    revision        bigint      NOT NULL DEFAULT 0,
    bytes           bigint      NOT NULL DEFAULT 0,
    digest          bytea       NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    snapshot_at     timestamptz,
    -- The tail without its content; all NULL when every entry is sealed.
    tail_id         integer,
    tail_type       smallint,
    tail_seconds    bigint,
    tail_nanos      integer,
    tail_revision   bigint,
    tail_dropped    bigint,
    tail_part_bytes bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- ordinal: the entry's position in its epoch. Unlike ids it has no gaps, so "the last N" is a
-- range. Revisions grow with (epoch, ordinal), so they need no index of their own.
CREATE TABLE log_entries (
    task_id  uuid    NOT NULL,
    epoch    integer NOT NULL,
    ordinal  integer NOT NULL,
    id       integer NOT NULL,
    revision bigint  NOT NULL,
    head     bytea   NOT NULL,
    content  bytea   NOT NULL,
    PRIMARY KEY (task_id, epoch, ordinal)
);
-- Stored in line if it fits: Postgres then needs a third less time to read 30 entries.
ALTER TABLE log_entries ALTER COLUMN head SET STORAGE PLAIN;
ALTER TABLE log_entries ALTER COLUMN content SET STORAGE MAIN;

-- What was added to the tail since its row in log_entries was written. A fold deletes these rows.
-- They are deleted soon, so vacuum runs after a number of rows: a share of the table is never
-- reached.
CREATE TABLE log_tail_parts (
    task_id    uuid    NOT NULL,
    revision   bigint  NOT NULL,
    keep_bytes integer NOT NULL,
    text       bytea   NOT NULL,
    PRIMARY KEY (task_id, revision)
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 100000
);
ALTER TABLE log_tail_parts ALTER COLUMN text SET STORAGE MAIN;

-- Withdrawals and epoch openings. For an opening, ordinal and id are NULL.
CREATE TABLE log_events (
    task_id      uuid        NOT NULL,
    revision     bigint      NOT NULL,
    epoch        integer     NOT NULL,
    ordinal      integer,
    id           integer,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (task_id, revision)
);

-- One heartbeat row per server process. up_since: since when servers have been up without a gap.
CREATE TABLE processes (
    process_id   uuid        PRIMARY KEY,
    heartbeat_at timestamptz NOT NULL,
    up_since     timestamptz NOT NULL
);
"""


def upgrade() -> None:
    # exec_driver_sql takes one statement at a time with asyncpg.
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("the first migration cannot be undone: drop the database")
