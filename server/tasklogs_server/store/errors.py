"""What the driver raises, as domain errors. Neither SQL nor the driver's text goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import asyncpg

from tasklogs_server.domain.errors import LogCorrupt, StoreUnavailable

RETRY_AFTER = timedelta(seconds=1)

_UNAVAILABLE = (
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
_CORRUPT = (
    asyncpg.DataCorruptedError,
    asyncpg.IndexCorruptedError,
)


def may_be_of_one_place(error: BaseException) -> bool:
    """Whether an error that makes the store unavailable may be one file's, or one block's.

    A disk that cannot read one block is no reason to keep other tasks from theirs.
    """
    return isinstance(error, asyncpg.PostgresSystemError)


def concerns_one_task(error: Exception) -> bool:
    """Whether what a statement about one task raised says nothing of other tasks."""
    if not isinstance(error, StoreUnavailable):
        return True
    return error.__cause__ is not None and may_be_of_one_place(error.__cause__)


def is_unavailable(error: BaseException) -> bool:
    """Whether the store could not be reached or could not do its work just now."""
    return isinstance(error, _UNAVAILABLE)


def is_connection_lost(error: BaseException) -> bool:
    """Whether a connection could not be had or kept: Postgres itself may be gone."""
    return isinstance(error, _LOST)


@contextmanager
def translated() -> Iterator[None]:
    """Raise domain errors from the driver's; what is none of its known failures passes as it is."""
    try:
        yield
    except _CORRUPT as error:
        raise LogCorrupt from error
    except _UNAVAILABLE as error:
        raise StoreUnavailable(RETRY_AFTER) from error
