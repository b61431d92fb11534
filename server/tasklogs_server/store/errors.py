"""What the driver's errors mean. `Connections.use` raises domain errors without their text."""

from __future__ import annotations

from datetime import timedelta

import asyncpg

from tasklogs_server.domain.errors import StoreUnavailable

RETRY_AFTER = timedelta(seconds=1)

UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,  # the connection is closed, or was cut in the middle
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, crashed, cancelled, starting up
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,  # a deadlock's victim
    asyncpg.PostgresSystemError,
)
_LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)
CORRUPT = (
    asyncpg.DataCorruptedError,
    asyncpg.IndexCorruptedError,
)


def may_concern_one_block(error: BaseException) -> bool:
    """Whether an error that makes the store unavailable may concern one file or block only.

    If the disk cannot read a block of one task, the other tasks must still be served.
    """
    return isinstance(error, asyncpg.PostgresSystemError)


def is_row_held(error: BaseException) -> bool:
    """Whether the statement gave up its wait for a lock of another transaction.

    Nothing was written. `error` is the driver's, or the domain's that was raised from it.
    """
    cause = error.__cause__ if isinstance(error, StoreUnavailable) else error
    return isinstance(cause, asyncpg.LockNotAvailableError)


def row_held() -> StoreUnavailable:
    """Return the error of work that found a lock of another transaction, and did not wait."""
    error = StoreUnavailable(RETRY_AFTER)
    error.__cause__ = asyncpg.LockNotAvailableError("another transaction holds the row")
    return error


def concerns_one_task(error: Exception) -> bool:
    """Whether the error of a statement about one task says nothing about other tasks."""
    if not isinstance(error, StoreUnavailable) or is_row_held(error):
        return True
    return error.__cause__ is not None and may_concern_one_block(error.__cause__)


def is_unavailable(error: BaseException) -> bool:
    """Whether the store could not be reached, or cannot work now."""
    return isinstance(error, UNAVAILABLE)


def is_connection_lost(error: BaseException) -> bool:
    """Whether a connection could not be opened or was lost: Postgres may be away."""
    return isinstance(error, _LOST)
