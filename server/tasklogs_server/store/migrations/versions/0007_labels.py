"""Labels of tasks, and the ids of the requests that created them."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_CHANGES = """
-- The defaults are constants, so no row is rewritten. request_id is the id that the creator chose
-- for its call, request_hash covers the other arguments of that call.
ALTER TABLE tasks
    ADD COLUMN labels       jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN request_id   uuid,
    ADD COLUMN request_hash bytea;

-- Without compression, the size that Postgres knows of a value is what is sent of it: a list counts
-- its bytes without reading the values.
ALTER TABLE tasks ALTER COLUMN labels SET STORAGE EXTERNAL;

-- Two calls with one id create one task, on any two servers. Deletion frees the id.
CREATE UNIQUE INDEX tasks_by_request ON tasks (owner, request_id)
 WHERE request_id IS NOT NULL AND deleted_at IS NULL;
"""


def upgrade() -> None:
    # exec_driver_sql takes one statement at a time with asyncpg.
    for statement in _CHANGES.split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("this migration cannot be undone: restore a backup")
