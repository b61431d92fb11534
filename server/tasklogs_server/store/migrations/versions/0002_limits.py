"""What a log has lost to its limits, how old its entries are, and since when a task is as it is."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_CHANGES = """
-- Tail parts die as fast as they are born: ten thousand dead ones were 15 times the live ones.
ALTER TABLE log_tail_parts SET (autovacuum_vacuum_threshold = 1000);

-- total_rows: entries, epoch openings and withdrawals that were ever stored, less the entries that
-- were withdrawn; `bytes` likewise. Commits write these two absolutely, from what their session
-- knows, so what eviction takes is counted beside them. Evicted is a prefix: everything up to
-- evicted_revision, the last entry of it at (evicted_epoch, evicted_ordinal).
ALTER TABLE log_heads
    ADD COLUMN total_rows       bigint  NOT NULL DEFAULT 0,
    ADD COLUMN evicted_rows     bigint  NOT NULL DEFAULT 0,
    ADD COLUMN evicted_bytes    bigint  NOT NULL DEFAULT 0,
    ADD COLUMN evicted_revision bigint  NOT NULL DEFAULT 0,
    ADD COLUMN evicted_epoch    integer NOT NULL DEFAULT 0,
    ADD COLUMN evicted_ordinal  integer NOT NULL DEFAULT -1;

UPDATE log_heads h
   SET total_rows = (SELECT count(*) FROM log_entries e WHERE e.task_id = h.task_id)
                  + (SELECT count(*) FROM log_events v WHERE v.task_id = h.task_id)
 WHERE h.revision > 0;

-- How old entries are, without a time in each: at marked_at the log stood at `revision`, so all up
-- to it is at least that old. Few rows a task: see store/evictions.py.
CREATE TABLE log_marks (
    task_id   uuid        NOT NULL,
    revision  bigint      NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (task_id, revision)
);

-- Of what was there before no age is known: it is taken to be of now.
INSERT INTO log_marks (task_id, revision)
SELECT task_id, revision FROM log_heads WHERE revision > 0;

-- Since when the facts are what they are, for the retention of paused tasks.
ALTER TABLE tasks ADD COLUMN changed_at timestamptz NOT NULL DEFAULT clock_timestamp();

CREATE INDEX tasks_paused ON tasks (changed_at)
 WHERE transition IN ('STOP', 'DELETE') AND job_status = 'SUCCEEDED' AND deleted_at IS NULL;
"""


def upgrade() -> None:
    # exec_driver_sql takes one statement at a time with asyncpg.
    for statement in _CHANGES.split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("what was evicted cannot come back: restore a backup")
