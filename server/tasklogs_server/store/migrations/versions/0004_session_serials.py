"""The number of the session that holds a task, so that lost sessions can be found in the store."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_CHANGES = """
-- (session_process, session_serial) names one handshake of one server process. No other handshake
-- has the same pair. 0: a session from before this column.
ALTER TABLE tasks ADD COLUMN session_serial bigint NOT NULL DEFAULT 0;

-- The sessions that the store records as open. Each process reads its own.
CREATE INDEX tasks_in_session ON tasks (session_process, session_serial)
 WHERE session_process IS NOT NULL AND session_lost_at IS NULL;
"""


def upgrade() -> None:
    # exec_driver_sql takes one statement at a time with asyncpg.
    for statement in _CHANGES.split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("ALTER TABLE tasks DROP COLUMN session_serial")
