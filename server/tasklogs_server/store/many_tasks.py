"""One statement for each of many tasks: together, or each alone where one of them is bad."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from tasklogs_server.store.connections import Connections
from tasklogs_server.store.errors import concerns_one_task

_log = structlog.get_logger(__name__)


async def each_or_alone(
    connections: Connections, statement: str, arguments: Sequence[tuple[object, ...]]
) -> None:
    """Run `statement` with each of `arguments`, whose first is the task, in one transaction.

    Where one task's row is refused or cannot be read, each runs alone and the bad ones are logged.
    Raises StoreUnavailable.
    """
    try:
        async with connections.use() as connection:
            await connection.executemany(statement, arguments)
        return
    except Exception as error:
        if not concerns_one_task(error):
            raise
    for one in arguments:
        try:
            async with connections.use() as connection:
                await connection.execute(statement, *one)
        except Exception as error:
            if not concerns_one_task(error):
                raise
            _log.error("store.row_refused", task=str(one[0]), error=type(error).__name__)
