"""What was evicted from a log, how old its entries are, and when a task's facts last changed."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_CHANGES = """
-- Tail parts are deleted as fast as they are added: ten thousand dead rows were 15 times the live
-- ones.
ALTER TABLE log_tail_parts SET (autovacuum_vacuum_threshold = 1000);

-- total_rows: entries, epoch openings and withdrawals that were ever stored, less the entries that
-- were withdrawn; `bytes` likewise. Commits overwrite both with the values that their session
-- knows, so evicted rows have counters of their own. Eviction removes a prefix: everything up to
-- evicted_revision. The last evicted entry had the position (evicted_epoch, evicted_ordinal).
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

-- How old entries are, without a time in each: at marked_at the log had this revision, so all
-- changes up to it are at least that old. A task has few rows.
CREATE TABLE log_marks (
    task_id   uuid        NOT NULL,
    revision  bigint      NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (task_id, revision)
);

-- The age of existing entries is unknown: it is counted from this upgrade.
INSERT INTO log_marks (task_id, revision)
SELECT task_id, revision FROM log_heads WHERE revision > 0;

-- When the facts last changed, for the retention of paused tasks.
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
    raise RuntimeError("evicted entries cannot be restored: restore a backup")
