"""Tail parts of several pieces."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_CHANGES = """
-- A part that does more than keep a prefix and append a text has NULL here. Its `text` then has the
-- encoded pieces (a ContentDelta of the API). The parts of before stay as they are.
ALTER TABLE log_tail_parts ALTER COLUMN keep_bytes DROP NOT NULL;
"""


def upgrade() -> None:
    # exec_driver_sql takes one statement at a time with asyncpg.
    for statement in _CHANGES.split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("this migration cannot be undone: restore a backup")
