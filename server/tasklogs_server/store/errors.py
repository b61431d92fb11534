"""What the driver's errors mean. `Connections.use` raises domain errors without their text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import asyncpg

from tasklogs_server.domain.errors import StoreUnavailable

RETRY_AFTER = timedelta(seconds=1)


class UnknownSchema(Exception):
    """The schema was made by a newer version of the server."""


class SchemaRefused(Exception):
    """The schema cannot be brought up to date. One line that says why."""


class NoHostUsable(ConnectionError):
    """The database URL names several hosts, and none of them can be used now.

    `reasons`: the error of each host, by its address.
    """

    def __init__(self, reasons: Mapping[str, BaseException]) -> None:
        super().__init__("no host can be used")
        self.reasons = reasons


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
STORE_ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""All that the driver raises, when it connects or later."""
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


def in_words(error: BaseException) -> str:
    """Return one line that says why a connection or a statement failed, for the operator.

    In the words of Postgres, if it said something. It contains neither the password nor the URL,
    and must not be sent to callers.
    """
    match error:
        case NoHostUsable():
            return "; ".join(f"{host}: {in_words(one)}" for host, one in error.reasons.items())
        case StoreUnavailable():
            cause = error.__cause__
            return "it is a standby or a former primary" if cause is None else in_words(cause)
        case asyncpg.PostgresError():
            # The driver's own errors of this type have no message, only a text.
            return _first_line(error.message or str(error)) or type(error).__name__
        case asyncpg.TargetServerAttributeNotMatched():
            return "it is a standby, or read-only"
        case TimeoutError():
            return "it does not answer"
        case FileNotFoundError():
            return "its socket is not there, or a file of its URL (sslrootcert, sslcert, sslkey)"
        case OSError():
            return error.strerror or _first_line(str(error)) or type(error).__name__
        case asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return _first_line(str(error)) or type(error).__name__
        case ValueError():
            # Its text quotes the URL.
            return (
                "its URL cannot be parsed; it looks like postgresql://USER:PASSWORD@HOST:PORT/NAME"
            )
        case _:
            return type(error).__name__


def becomes_usable(error: BaseException) -> bool:
    """Whether a database that answered so may soon be usable: it starts up, or is a standby."""
    if isinstance(error, NoHostUsable):
        return any(map(becomes_usable, error.reasons.values()))
    return isinstance(
        error, asyncpg.CannotConnectNowError | asyncpg.TargetServerAttributeNotMatched
    )


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
