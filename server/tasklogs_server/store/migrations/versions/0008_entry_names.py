"""The source_id, name and call_id of the tail. Sealed entries have them in their encoded heads."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# bytea, because text refuses NUL. NULL, and without any cost, for the tails that have no names.
_CHANGE = """
ALTER TABLE log_heads
    -- source_id, name and call_id, in this order; NULL if the tail has none of them.
    ADD COLUMN tail_names bytea[]
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(_CHANGE)


def downgrade() -> None:
    raise RuntimeError("names of tails cannot be restored: restore a backup")
