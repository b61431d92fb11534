"""The generation of each log: which history of the store its last writer knew."""

from __future__ import annotations

import re

from alembic import op
from sqlalchemy.exc import DBAPIError

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# The defaults are constants, so no row is rewritten. The lock on log_heads is held for moments.
# lost_after: the revisions after which a history was lost.
_CHANGES = """
ALTER TABLE log_heads
    ADD COLUMN generation text     NOT NULL DEFAULT '{generation}',
    ADD COLUMN lost_after bigint[] NOT NULL DEFAULT '{{}}';

ALTER TABLE log_heads ALTER COLUMN generation SET DEFAULT '';
"""

# As in store/generations.py at this version.
_GENERATION = """
    SELECT (SELECT system_identifier::text FROM pg_control_system()) || '/'
           || left(pg_walfile_name(pg_current_wal_lsn()), 8)"""
_IS_GENERATION = re.compile(r"\d+/[0-9A-F]{8}")


def upgrade() -> None:
    # exec_driver_sql takes one statement at a time with asyncpg.
    for statement in _CHANGES.format(generation=_generation()).split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)


def _generation() -> str:
    """Return the generation that all logs have; '' if Postgres does not tell it."""
    try:
        with op.get_bind().begin_nested():
            generation = str(op.get_bind().exec_driver_sql(_GENERATION).scalar())
    except DBAPIError:
        return ""
    return generation if _IS_GENERATION.fullmatch(generation) else ""


def downgrade() -> None:
    raise RuntimeError("this migration cannot be undone: restore a backup")
