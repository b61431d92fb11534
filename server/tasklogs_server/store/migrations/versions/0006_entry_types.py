"""The type of each entry, to filter by."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# `head` is the tag and the length of the entry, then the tag and the value of its id, then the tag
# of its type and the type. The length counts all bytes after it.
_CHANGES = """
-- The type of existing entries is in their heads. The column is generated, so that one rewrite of
-- the table fills it. Then it becomes a plain column: with a generated one, each statement that
-- writes the table prepares the expression, and a commit of one entry takes a fifth longer.
ALTER TABLE log_entries ADD COLUMN type smallint NOT NULL GENERATED ALWAYS AS (
    get_byte(
        substr(
            head,
            4 + CASE WHEN octet_length(head) + octet_length(content) <= 129 THEN 1
                     WHEN octet_length(head) + octet_length(content) <= 16386 THEN 2
                     WHEN octet_length(head) + octet_length(content) <= 2097155 THEN 3
                     ELSE 4 END
              + CASE WHEN id < 128 THEN 1 WHEN id < 16384 THEN 2 WHEN id < 2097152 THEN 3
                     WHEN id < 268435456 THEN 4 ELSE 5 END,
            1
        ) || decode('00', 'hex'),
        0
    )) STORED;
ALTER TABLE log_entries ALTER COLUMN type DROP EXPRESSION;

-- For reads of some types only. They read the entries that they return and no others, however rare
-- these are. With the epoch after the type, one index serves reads of an epoch and follows over all
-- epochs.
CREATE INDEX log_entries_by_type ON log_entries (task_id, type, epoch, ordinal);

-- The type of a withdrawn entry. NULL: an epoch opening, or a withdrawal from before this column.
ALTER TABLE log_events ADD COLUMN type smallint;
"""


def upgrade() -> None:
    # exec_driver_sql takes one statement at a time with asyncpg.
    for statement in _CHANGES.split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise RuntimeError("this migration cannot be undone: restore a backup")
