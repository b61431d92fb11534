"""Whether Citus has distributed the tables over several Postgres servers.

Then each task is on one of them: its rows in `tasks`, `log_heads`, `log_entries`, `log_tail_parts`
and `log_events`. Names are elsewhere, by owner. docs/citus.md says how and at what price.

Citus sends a statement about one task to its server as it is, if each table has a condition
`task_id = $n`. Of other statements it makes several, and refuses what it cannot divide. So some
statements have a second text for it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasklogs_server.store.connect import Connection

# Without the first, Postgres refuses the second.
_HAS_CITUS = "SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL"
_IS_DISTRIBUTED = """
    SELECT EXISTS (SELECT 1 FROM pg_dist_partition WHERE logicalrelid = to_regclass('tasks'))"""

SHARDED_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        # To find the server of a task, Citus needs the task's id when it plans.
        "plan_cache_mode": "auto",
        # A lock is waited for on the server of the task: SET LOCAL lock_timeout must reach it.
        "citus.propagate_set_commands": "local",
    }
)
"""In addition to those of every connection."""


async def is_sharded(connection: Connection) -> bool:
    """Whether the tables of this database are distributed."""
    if not await connection.fetchval(_HAS_CITUS):
        return False
    distributed: bool = await connection.fetchval(_IS_DISTRIBUTED)
    return distributed
