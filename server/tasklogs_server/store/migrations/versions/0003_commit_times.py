"""The commit time of each entry, which replaces the marks."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CHANGES = """
-- When the entry last changed. Eviction and the retention of paused tasks use it. now() is
-- evaluated once for all existing rows, so no row is rewritten. Their age is unknown: it is counted
-- from this upgrade.
ALTER TABLE log_entries ADD COLUMN committed_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE log_entries ALTER COLUMN committed_at SET DEFAULT clock_timestamp();

DROP TABLE log_marks;
"""


def upgrade() -> None:
    # exec_driver_sql takes one statement at a time with asyncpg.
    for statement in _CHANGES.split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("the marks cannot be restored: restore a backup")
